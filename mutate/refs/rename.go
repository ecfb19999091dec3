package refs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/uki"
)

// Names are what volumes are called from now on, by what calls them so. The old
// UUIDs are in small letters, and the new ones have the length of the old.
type Names struct {
	Partitions  map[string]string // as PARTUUID= has them
	Filesystems map[string]string // as UUID= has them
	Labels      map[string]string // as LABEL= has them, of letters, digits and . _ - alone
	// Here are the UUIDs that filesystems have and keep. One of them may equal that of a
	// partition, and unless a text says that it means that one, it is theirs.
	Here []string
}

// Rename puts new names in place of old ones in all texts that are read at boot.
// write gets what changes; a file may get several patches, and keeps its length if no
// label is of another. Where a filesystem has the UUID of a partition, as in disks that NixOS makes, it is only
// replaced where the text says which of them it means, and else wherever it stands: boot
// loaders make names of menu entries of it, and scripts keep it in variables. What is so
// short that it may be a date is said to be a UUID at least. It is an error of class [fault.Image]
// if a file would have to change that cannot, because it is signed, or if there is
// too much to look into or to change. What else has the name of a volume, as an
// initrd's copy, is for [Files.Scan].
func (f Files) Rename(ctx context.Context, names Names, write func(Patch) error) error {
	return f.rename(ctx, names, f.eachOther, write)
}

// RenameIn is Rename in those texts that have a name of their own, as /etc/fstab, and in
// other files that are listed. It takes a quarter of the time. Whether there are more that
// have an old name, [Files.Scan] tells.
func (f Files) RenameIn(ctx context.Context, names Names, others []string, write func(Patch) error) error {
	return f.rename(ctx, names, func(ctx context.Context, done otherTexts) error { return f.eachListed(ctx, others, done) }, write)
}

func (f Files) rename(
	ctx context.Context, names Names, eachOther func(context.Context, otherTexts) error, write func(Patch) error,
) error {
	r, err := newRenamer(names)
	if err != nil {
		return err
	}
	done := map[string]bool{}
	text := func(name, before string) error {
		done[name] = true
		after := r.text(before)
		if isFstab(name) {
			after = renameEscaped(after, r.text)
		}
		if after == before {
			return nil
		}
		if signature, ok := f.signatureOf(name); ok {
			return fault.New(fault.Image, signedMend,
				"%s is signed by %s, and names a volume by its UUID, which every image has anew", name, signature)
		}
		if after, err = fit(name, before, after); err != nil {
			return err
		}
		return write(Patch{File: name, Bytes: []byte(after), Whole: true})
	}
	if err := f.eachText(ctx, text); err != nil {
		return err
	}
	if err := eachOther(ctx, otherTexts{done, r.mayChange, text}); err != nil {
		return err
	}
	total := 0 // several names may lead to one file
	return f.eachUKI(ctx, func(name string, u uki.File) error {
		patches, err := renameLines(name, u, r.text)
		for _, p := range patches {
			if total += len(p.Bytes); total > maxTotal {
				return tooMuch("the kernel command lines that change, up to that of %s, have more than %d MiB",
					name, maxTotal>>20)
			}
			err = errors.Join(err, write(p))
		}
		return err
	})
}

const signedMend = "name the volume by what it keeps, or sign when the image is made"

// renamer rewrites texts.
type renamer struct {
	Names
	*finder
	label *regexp.Regexp  // nil if there are none
	here  map[string]bool // in small letters
}

func newRenamer(names Names) (*renamer, error) {
	for _, m := range []map[string]string{names.Partitions, names.Filesystems} {
		for old, fresh := range m {
			if len(old) != len(fresh) {
				return nil, fmt.Errorf("rename the volume %s to %s: there is no room for another length", old, fresh)
			}
		}
	}
	ids := slices.Collect(maps.Keys(names.Partitions))
	for old := range names.Filesystems {
		if _, ok := names.Partitions[old]; !ok {
			ids = append(ids, old)
		}
	}
	return &renamer{names, newFinder(ids), labelsIn(names.Labels), setOf(names.Here)}, nil
}

// mayChange says whether a text has an old name anywhere.
func (r *renamer) mayChange(text string) bool {
	found := r.label != nil && r.label.MatchString(text)
	r.look([]byte(text), 0, true, func(match) bool {
		found = true
		return false
	})
	return found
}

// text rewrites a text.
func (r *renamer) text(text string) string {
	var stale []match
	r.look([]byte(text), 0, true, func(m match) bool {
		if m.kind == asText {
			stale = append(stale, m)
		}
		return true
	})
	slices.SortFunc(stale, func(a, b match) int { return a.start - b.start })
	var b strings.Builder
	rest := 0
	for _, m := range stale {
		fresh, ok := r.fresh(m)
		if !ok || m.start < rest {
			continue
		}
		b.WriteString(text[rest:m.start])
		if strings.Contains(text[m.start:m.end], escapedDash) {
			fresh = strings.ReplaceAll(fresh, "-", escapedDash)
		}
		b.WriteString(fresh)
		rest = m.end
	}
	b.WriteString(text[rest:])
	return r.renameLabels(b.String())
}

// fresh is the new name in place of a match, if it is one.
func (r *renamer) fresh(m match) (name string, ok bool) {
	id := r.ids[m.id]
	partition, isPartition := r.Partitions[id]
	filesystem, isFilesystem := r.Filesystems[id]
	switch sort := m.sort(); {
	case sort == ofPartition:
		return partition, isPartition
	case isPartition && !isFilesystem && !r.here[id]:
		return partition, rare(id) || sort == ofFilesystem
	case sort == ofFilesystem:
		return filesystem, isFilesystem
	case sort == unsaid && !isPartition && rare(id):
		return filesystem, isFilesystem
	}
	return "", false
}
