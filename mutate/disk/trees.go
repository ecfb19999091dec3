package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/reflink"
)

// Placed is a tree of the image's files, and where the booted system has it.
type Placed struct {
	At string // "/"; "" for a volume that the system does not mount
	*Tree
	Volume Volume // of which it is; of several it is root's
}

// ReadAtBoot says whether all files of the tree may be read when the system starts, by
// firmware or a boot loader, and not those in some of its directories.
func (p Placed) ReadAtBoot() bool {
	return p.At != "/" && (p.Volume.FS == "vfat" || p.Volume.Role == Boot)
}

// Key tells the tree from others of the image.
func (p Placed) Key() string { return fmt.Sprintf("%d:%s", p.Volume.Slot, p.At) }

// Unmoved gives a function that says where the bytes of a file of a FAT volume are, in
// words, if those of the base are known to be the same there. Not a byte is read. It is
// nil where the filesystem itself tells what has changed.
func (i *Image) Unmoved(ctx context.Context, base *os.File, t Placed) func(name string, size int64) (place string, ok bool) {
	fat, isFAT := t.files.(fatFS)
	if base == nil || !isFAT {
		return nil
	}
	return func(name string, size int64) (place string, ok bool) {
		ranges, err := fat.ranges(name, size)
		for _, r := range ranges {
			here := reflink.Range{Offset: t.Volume.Offset + int64(r.Offset), Length: int64(r.Length)}
			same, e := content.Shares(ctx, base, i.File, here)
			if err = errors.Join(err, e); !same {
				return "", false
			}
			place += fmt.Sprintf(" %d+%d", here.Offset, here.Length)
		}
		return place, err == nil
	}
}

// Trees gives all files of the image, read-only: those of the system, as the system
// sees them through all that it mounts of the image, first, then those of deployments of
// ostree that do not start by default, and then those of each volume that is not among
// them. FAT is always apart: it is read without the kernel.
// A volume whose files cannot be read is not among them, but an error in the second
// list. The trees are the image's: the caller does not close them.
func (i *Image) Trees() ([]Placed, []error, error) {
	if err := i.FindRoles(); err != nil {
		return nil, nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.trees()
}

func (i *Image) trees() (trees []Placed, unreadable []error, err error) {
	system, missing, err := i.systemTree()
	if err != nil {
		return nil, nil, err
	}
	root, _ := i.Layout.Find(Root)
	trees = []Placed{{"/", system, root}}
	others, err := i.otherDeployments(root)
	if err != nil {
		return nil, nil, err
	}
	trees = append(trees, others...)
	for _, v := range i.Layout.Volumes {
		place, seen := i.Layout.placeOf(v), i.holds(v) && !slices.Contains(missing, v.Slot)
		switch {
		case v.FS == "vfat":
			t, err := i.fat(v)
			if err != nil {
				unreadable = append(unreadable, err)
				continue
			}
			trees = append(trees, Placed{place, t, v})
		case !seen && mount.Writable(v.FS):
			t, err := i.alone(part{slot: v.Slot})
			if err != nil {
				unreadable = append(unreadable, err)
				continue
			}
			trees = append(trees, Placed{place, t, v})
		}
	}
	return trees, unreadable, nil
}

// alone gives the files of a part of the image by itself.
func (i *Image) alone(p part) (*Tree, error) {
	if i.guest == nil {
		if err := i.mount(p)[0]; err != nil {
			return nil, err
		}
	}
	root, err := i.view(p)
	if err != nil {
		v, _ := i.Layout.Slot(p.slot)
		return nil, fmt.Errorf("mount %s (%s): %w", v, v.FS, err)
	}
	return treeOf(root), nil
}

// EachVolume gives the files of each volume by itself, wherever the system has it: it
// can also be asked of an image of which that is not known. A volume whose files cannot
// be read is not among them.
func (i *Image) EachVolume() (trees []Placed) {
	i.mu.Lock()
	defer i.mu.Unlock()
	files := i.eachVolume()
	for _, slot := range files.slots() {
		v, _ := i.Layout.Slot(slot)
		trees = append(trees, Placed{"", files.trees[slot], v})
	}
	return trees
}

// holds says whether the system's own tree has a volume in it.
func (i *Image) holds(v Volume) bool {
	return slices.ContainsFunc(i.Layout.Mounts, func(m Mounted) bool { return i.InSystem(m) && m.Slot == v.Slot })
}

// InSystem says whether a mount is part of the system's tree when that is read.
func (i *Image) InSystem(m Mounted) bool {
	v, ok := i.Layout.Slot(m.Slot)
	return ok && m.OfVolume() && !m.ByHand && v.FS != "vfat" && mount.Supported(v.FS)
}

// placeOf is the first place where the system has a volume, "" if it mounts it
// nowhere.
func (l *Layout) placeOf(v Volume) string {
	for _, m := range l.Mounts {
		if m.OfVolume() && m.Slot == v.Slot {
			return m.Mountpoint
		}
	}
	return ""
}

// systemTree mounts what the system does, and gives its files. missing are the slots
// of volumes for which root has no directory.
func (i *Image) systemTree() (t *Tree, missing []int, err error) {
	if i.system == nil {
		places, err := i.systemPlaces()
		if err != nil {
			return nil, nil, err
		}
		if i.system, err = mount.Assemble(places); err != nil {
			return nil, nil, fmt.Errorf("put the image's volumes together: %w", err)
		}
	}
	for _, p := range i.system.Missing {
		for _, m := range i.Layout.Mounts {
			if m.Mountpoint == p.At {
				missing = append(missing, m.Slot)
			}
		}
	}
	return treeOf(i.system.Root), missing, nil
}

// LacksPlaces says whether root has no directory for a volume that the system mounts.
// systemd makes it at the start; a guest that cannot write there does not.
func (i *Image) LacksPlaces() (bool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, missing, err := i.systemTree()
	return len(missing) > 0, err
}

// systemPlaces are the mounts of the system's tree.
func (i *Image) systemPlaces() ([]mount.Place, error) {
	var parts []part
	var mounts []Mounted
	for _, m := range i.Layout.Mounts {
		if i.InSystem(m) {
			mounts, parts = append(mounts, m), append(parts, m.part())
		}
	}
	if i.guest == nil {
		if err := errors.Join(i.mount(parts...)...); err != nil {
			return nil, err
		}
	}
	show := map[part]*os.File{}
	for _, p := range parts {
		var err error
		if show[p], err = i.view(p); err != nil {
			return nil, err
		}
	}
	places, beside := besidePlace(mounts, show)
	for n, m := range mounts {
		places = append(places, placeOf(m, beside, mounts[slices.Index(parts, parts[n])], show))
	}
	return places, nil
}

// besidePlace is the place of a volume of which the system sees parts, if there is one.
func besidePlace(mounts []Mounted, show map[part]*os.File) (places []mount.Place, beside part) {
	n := slices.IndexFunc(mounts, func(m Mounted) bool { return m.Sub != "" })
	if n < 0 {
		return nil, part{slot: -1}
	}
	beside = mounts[n].part()
	return []mount.Place{{Beside: true, Mount: show[beside], Filesystem: beside.slot}}, beside
}

// placeOf is the place of a mount of a volume. first is the first mount of the same part:
// a detached mount has one place, and what is mounted twice is bound the second time.
func placeOf(m Mounted, beside part, first Mounted, show map[part]*os.File) mount.Place {
	switch {
	case m.part() == beside:
		return mount.Place{At: m.Mountpoint, Bind: path.Join("/", m.Sub), Beside: true, ReadOnly: m.ReadOnly, Filesystem: -1}
	case first.Mountpoint != m.Mountpoint:
		return mount.Place{At: m.Mountpoint, Bind: first.Mountpoint, Filesystem: -1}
	}
	return mount.Place{At: m.Mountpoint, Mount: show[m.part()], Filesystem: m.Slot}
}

// view is the root of a part that is mounted, with nothing mounted in it. What a guest
// has got is part of its tree, so for a look into it there is another mount of the same.
func (i *Image) view(p part) (*os.File, error) {
	if i.guest == nil {
		return i.mounted[p], nil
	}
	if i.views[p] == nil {
		r := i.request(p)
		r.Programs, r.Users = false, nil
		mounts, errs := i.disk.Mount(r)
		if errs[0] != nil {
			return nil, errs[0]
		}
		i.views[p] = mounts[0]
	}
	return i.views[p], nil
}

// treeAt is the files of what a mount shows, without what is mounted in it.
func (i *Image) treeAt(m Mounted) (*Tree, error) {
	root, err := i.view(m.part())
	if err != nil {
		return nil, err
	}
	if m.Sub == "" {
		return i.look(root, m.Slot), nil
	}
	if dir, ok := i.dirs[m.Sub]; ok {
		return i.look(dir, m.Slot), nil
	}
	sub := m.Sub
	if i.overlaid != nil {
		if below, in := Within(sub, i.overlaid.dir); in {
			root, sub = i.overlaid.view, below
		}
	}
	dir, err := mountedTree{root}.open(sub, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	i.dirs[m.Sub] = dir
	return i.look(dir, m.Slot), nil
}

// look is treeOf for files of a volume by which it is found out what the system mounts.
func (i *Image) look(root *os.File, slot int) *Tree {
	if i.watch == nil {
		return treeOf(root)
	}
	v, _ := i.Layout.Slot(slot)
	return i.watch.of(root, v.FS == "vfat")
}

// Change has the image's files opened for writing, which replays journals, and calls
// change with the trees. What was read before is let go of first: one filesystem is
// not mounted in two ways. Afterwards all is closed, and what is read is read anew.
func (i *Image) Change(change func([]Placed) error) error {
	if err := i.FindRoles(); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.detach(); err != nil {
		return err
	}
	i.access = ReadWrite
	i.dirty = nil
	defer func() { i.access = ReadOnly }()
	trees, unreadable, err := i.trees()
	if err = errors.Join(append(unreadable, err)...); err == nil {
		err = change(trees)
	}
	return errors.Join(err, i.detach())
}
