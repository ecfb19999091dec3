package refs

import (
	"bytes"
	"regexp"
	"strings"
)

// What an ID names is decided by what stands before it. A partition and a
// filesystem may have the same UUID, as in disks that NixOS makes, and then only
// the partition's changes. The rule:
//
//   - said to be a partition's (PARTUUID=, by-partuuid/ and what is like them): it is;
//   - said to be something else (UUID=, by-uuid/, --fs-uuid, a label): it is not;
//   - not said: it is the partition's, unless a filesystem of the image has that
//     UUID, for then nobody but its reader can tell.
var (
	saysPartition = says(
		`part_?uuid\}?[=: \t]*["']?`, `part_entry_uuid\}?=?=?["']?`, // the kernel, fstab, U-Boot; udev
		`by(?:-|\\x2d)partuuid(?:[/-]|\\x2d|\\x2f)`,                  // a link, in the name of a unit too
		`\bpart-uuid[ =]+`, `--part-?uuid(?:[ =]|[^\n;]*[ \t])["']?`, // GRUB
		`\bguid\(`, `\bgpt,`, // Limine; a device path as text
	)
	saysOther = says(
		`\b(?:id_fs_)?uuid(?:_enc)?\}?=?=["']?`, `\b(?:part)?label=["']?`, `\bluks-`,
		`by(?:-|\\x2d)(?:uuid|label|partlabel|id)(?:[/-]|\\x2d|\\x2f)`,
		`\bsearch(?:\.fs_uuid|\b[^\n;]*--fs-uuid|[^\n;]*[ \t]-[a-z]*u)[^\n;]*[ \t]["']?`, `\bfs_?uuid[=: ]+["']?`,
	)
)

// says is what ends with one of these, in any letter case.
func says(endings ...string) *regexp.Regexp {
	return regexp.MustCompile(`(?i)(?:` + strings.Join(endings, "|") + `)$`)
}

// isPartition says whether an ID is a partition's. unsure is what it is if the
// text does not say.
func (m match) isPartition(unsure bool) bool {
	before := m.before
	switch m.kind {
	case asBinary:
		return unsure
	case asWide:
		before = bytes.ReplaceAll(before, []byte{0}, nil)
	}
	if n := bytes.LastIndexAny(before, "\n\x00"); n >= 0 {
		before = before[n+1:]
	}
	switch {
	case saysPartition.Match(before):
		return true
	case saysOther.Match(before):
		return false
	}
	return unsure
}
