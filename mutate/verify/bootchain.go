package verify

import (
	"context"
	"io/fs"
	"strings"

	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

var bootCheck = judged("boot chain", 1, bootChain)

// bootChain judges whether what the boot loaders start is there, and is what was
// installed last.
func bootChain(_ context.Context, i *disk.Image) ([]finding, error) {
	trees, err := places(i)
	if err != nil {
		return nil, err
	}
	entries, _ := boot.Entries(trees) // what it could not read, Judge tells
	var found []finding
	for _, f := range boot.Judge(trees, entries, isRoot(i.Layout)) {
		found = append(found, finding{what: f.What, key: f.Key(), mend: f.Mend, note: f.Note})
	}
	return found, nil
}

// Entries are the ways to start the image that its boot loaders have, the default
// first. Of an image that imgmut cannot use they are those that each volume tells of by
// itself.
func Entries(i *disk.Image) ([]boot.Entry, error) {
	all, err := places(i)
	if err != nil {
		for _, t := range i.EachVolume() {
			all = append(all, boot.Place{At: likelyPlace(t), UUID: t.Volume.UUID, FS: t.Tree})
		}
	}
	return boot.Entries(all)
}

// likelyPlace is where the system may have a volume of which it is not known.
func likelyPlace(t disk.Placed) string {
	switch {
	case t.Volume.FS == "vfat":
		return ""
	case etc.Exists(t, "etc"), etc.Exists(t, "ostree/deploy"):
		return "/"
	}
	return "/boot"
}

// places are the trees in which something for the start may be: what a boot loader
// names is a path in its own volume, so each volume that the system mounts is one, as
// well as all of them together. One that cannot be read is told of by the references.
func places(i *disk.Image) (all []boot.Place, err error) {
	trees, _, err := i.Trees()
	if err != nil {
		return nil, err
	}
	for _, t := range trees {
		if t.At == "" && t.Volume.FS != "vfat" {
			continue // of no system, or of another one
		}
		all = append(all, boot.Place{At: t.At, UUID: t.Volume.UUID, FS: t.Tree})
	}
	for _, m := range i.Layout.Mounts {
		v, ok := i.Layout.Slot(m.Slot)
		if !ok || m.Mountpoint == "/" || !i.InSystem(m) {
			continue
		}
		below, err := fs.Sub(trees[0], strings.TrimPrefix(m.Mountpoint, "/"))
		if err != nil {
			return nil, err
		}
		all = append(all, boot.Place{At: m.Mountpoint, UUID: v.UUID, FS: below})
	}
	return all, nil
}

// isRoot tells what root= may name.
func isRoot(l *disk.Layout) func(spec string) (is, known bool) {
	return func(spec string) (is, known bool) {
		if strings.HasPrefix(spec, "/dev/") && !byLink().MatchString(spec) && !firstDisk().MatchString(spec) {
			return false, false // of a volume group, or of a disk that may be another
		}
		if v, ok := l.Resolve(spec); ok {
			return v.Role == disk.Root, true
		}
		return false, tag().MatchString(spec) || byLink().MatchString(spec)
	}
}

var (
	tag       = lazyregexp.New(`^(PART)?(UUID|LABEL)=`)
	byLink    = lazyregexp.New(`^/dev/disk/by-(part)?(uuid|label)/`)
	firstDisk = lazyregexp.New(`^/dev/([shv]da|xvda|nvme0n1p|mmcblk0p)[0-9]+$`)
)
