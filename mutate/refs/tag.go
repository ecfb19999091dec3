package refs

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// What an ID names is decided by what stands before it. A partition and a
// filesystem may have the same UUID, as in disks that NixOS makes, and then each
// is followed by its own tag alone. The rule:
//
//   - said to be a partition's (PARTUUID=, by-partuuid/ and what is like them): it is;
//   - one that a partition has and no filesystem: it is the partition's, whatever the
//     text says, for nothing else has it by chance. U-Boot's uEnv.txt and scripts
//     keep it in a variable (uuid=…) that only another line makes a PARTUUID;
//   - said to be a filesystem's (UUID=, by-uuid/, --fs-uuid): it is;
//   - said to be something else (a label, LUKS): it is neither;
//   - not said: it is of the one that has that UUID, and if both have, nobody but
//     its reader can tell.
type sort int

const (
	unsaid sort = iota
	ofPartition
	ofFilesystem
	ofOther
	isALabel
)

var (
	saysPartition = says(
		`\bpart_?uuid\}?[=: \t]*["']?`, `part_entry_uuid\}?=?=?["']?`, // the kernel, fstab, U-Boot; udev
		`by(?:-|\\x2d)partuuid(?:[/-]|\\x2d|\\x2f)`,                  // a link, in the name of a unit too
		`\bpart-uuid[ =]+`, `--part-?uuid(?:[ =]|[^\n;]*[ \t])["']?`, // GRUB
		`\bguid\(`, `\bgpt,`, // Limine; a device path as text
	)
	saysOther = says(
		`\b(?:part)?label=["']?`, `\bluks-`, `by(?:-|\\x2d)(?:label|partlabel|id)(?:[/-]|\\x2d|\\x2f)`,
	)
	saysFilesystem = says(
		`\b(?:id_fs_)?uuid(?:_enc)?\}?=?=["']?`, `by(?:-|\\x2d)uuid(?:[/-]|\\x2d|\\x2f)`,
		`\bsearch(?:\.fs_uuid|\b[^\n;]*--fs-uuid|[^\n;]*[ \t]-[a-z]*u)[^\n;]*[ \t]["']?`, `\bfs_?uuid[=: ]+["']?`,
	)
)

// says is what ends with one of these, in any letter case.
func says(endings ...string) func() *regexp.Regexp {
	return lazyregexp.New(`(?i)(?:` + strings.Join(endings, "|") + `)$`)
}

// sort is what the text says of an ID.
func (m match) sort() sort {
	before := m.before
	switch m.kind {
	case asBinary:
		return unsaid
	case asLabel:
		return isALabel
	case asWide:
		before = bytes.ReplaceAll(before, []byte{0}, nil)
	}
	if n := bytes.LastIndexAny(before, "\n\x00"); n >= 0 {
		before = before[n+1:]
	}
	switch {
	case saysPartition().Match(before):
		return ofPartition
	case saysOther().Match(before):
		return ofOther
	case saysFilesystem().Match(before):
		return ofFilesystem
	}
	return unsaid
}

// rare says whether an ID is so long that it is nothing else by chance. An MBR's
// partition and a FAT volume have some eight digits, which a date has too.
func rare(id string) bool { return len(id) >= 32 }
