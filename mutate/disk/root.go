package disk

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/ostree"
)

// findRoot finds the one volume, or the part of one, that holds the operating
// system. It is mounted.
func (i *Image) findRoot(files volumeFiles) (Mounted, error) {
	k := sync.OnceValue(func() kernelLine { return parseKernelLine(files.commandLine(nil)) })
	var roots []Mounted
	var obstacles []string
	for _, v := range i.Layout.Volumes {
		if what := unusable(v.FS); what != "" {
			obstacles = append(obstacles, fmt.Sprintf("%s holds %s, which imgmut cannot work in", v, what))
		}
		tree := files.trees[v.Slot]
		if tree == nil || v.FS == "vfat" {
			continue
		}
		found, obstacle, err := i.rootsOf(v, tree, files, k)
		if err != nil {
			return Mounted{}, err
		}
		if obstacle != "" {
			obstacles = append(obstacles, fmt.Sprintf("%s holds %s", v, obstacle))
		}
		roots = append(roots, found...)
	}
	damaged := false
	for _, err := range files.errs {
		if hostFault(err) || errors.Is(err, mount.ErrNoLoop) {
			return Mounted{}, err
		}
		damaged = damaged || errors.Is(err, syscall.EUCLEAN) || errors.Is(err, syscall.EBADMSG) || errors.Is(err, syscall.EIO)
		obstacles = append(obstacles, err.Error())
	}
	if len(roots) > 1 {
		roots = i.Layout.likelyRoots(roots, k)
	}
	switch {
	case len(roots) == 1:
		return i.root(roots[0], k)
	case len(roots) > 1:
		return Mounted{}, i.Layout.manyRoots(roots)
	case len(obstacles) > 0:
		mend := "imgmut works on a root of ext4, XFS or btrfs that this kernel can mount"
		if damaged {
			mend = "check the filesystem with its own program (e2fsck, xfs_repair, btrfs check) on a copy of the image"
		}
		return Mounted{}, fault.New(fault.Image, mend, "the image has no usable root: %s", strings.Join(obstacles, "; "))
	}
	return Mounted{}, fault.New(fault.Image,
		"check that the file is the image of a disk with an operating system",
		"the image has no partition table and no filesystem that holds an operating system (no /etc/os-release)")
}

// rootsOf gives what in a volume may be the root: its files as they are mounted by
// default or, of a btrfs whose default holds no system, its subvolumes that do.
func (i *Image) rootsOf(v Volume, tree *Tree, files volumeFiles, k kernelSays) (found []Mounted, obstacle string, err error) {
	m := Mounted{Mountpoint: "/", Slot: v.Slot, From: "its files"}
	if v.FS == "btrfs" {
		flags := kept(strings.Split(k().rootFlags, ","))
		if len(flags) > 0 && slices.Contains(i.Layout.resolveAll(k().root), v.Slot) {
			m.Options, m.From = flags, "the kernel's command line"
			return []Mounted{m}, "", i.mount(m.part())[0]
		}
	}
	switch what := classify(tree); {
	case what == "ostree":
		mounts, err := i.deployment(v, tree, files, k)
		if err != nil {
			return nil, "", err
		}
		i.ostree = mounts[1:]
		return mounts[:1], "", nil
	case what == "root", what == "" && i.holdsNoUsr(v, tree, files):
		return []Mounted{m}, "", nil
	case ostree.IsBootcComposefs(tree):
		return nil, ostree.BootcComposefs, nil
	case v.FS != "btrfs":
		return nil, "", nil
	}
	for _, name := range subvolumes(tree) {
		m.Options, m.From = []string{"subvol=" + name}, "the subvolume "+name
		if err := i.mount(m.part())[0]; err == nil && classify(treeOf(i.mounted[m.part()])) == "root" {
			found = append(found, m)
		}
	}
	return found, "", nil
}

// maxSubvolumes is in how many directories a root is looked for.
const maxSubvolumes = 64

// subvolumes are the directories of a btrfs that may be subvolumes with a system,
// as distributions lay them out: root, @, @rootfs, or what is beside them.
func subvolumes(t *Tree) []string {
	names, err := etc.ReadDir(t, ".", maxSubvolumes)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(names, func(name string) bool {
		return !etc.Exists(t, path.Join(name, "usr")) && !etc.Exists(t, path.Join(name, "etc"))
	})
}

// holdsNoUsr says whether a volume is a root whose /usr is a volume of its own: it
// has a directory for it, and what else a root has.
func (i *Image) holdsNoUsr(v Volume, tree *Tree, files volumeFiles) bool {
	if !v.isRoot() && !etc.Exists(tree, "etc") || !etc.Exists(tree, "usr") || etc.Exists(tree, "usr/lib") {
		return false
	}
	for slot, t := range files.trees {
		if slot != v.Slot && etc.Exists(t, "lib/os-release") && etc.Exists(t, "bin") {
			return true
		}
	}
	return false
}

// likelyRoots narrows several candidates: to what the kernel is told, to those
// that say by their type that they are root, and of the subvolumes of one volume to
// those whose own fstab says so.
func (l *Layout) likelyRoots(candidates []Mounted, k kernelSays) []Mounted {
	for _, likely := range []func(Mounted) bool{
		func(m Mounted) bool { return slices.Contains(l.resolveAll(k().root), m.Slot) },
		func(m Mounted) bool { v, _ := l.Slot(m.Slot); return v.isRoot() },
	} {
		some := slices.DeleteFunc(slices.Clone(candidates), func(m Mounted) bool { return !likely(m) })
		if len(some) > 0 {
			candidates = some
		}
	}
	return candidates
}

// resolveAll are the slots of the volumes that a reference names.
func (l *Layout) resolveAll(spec string) []int {
	var slots []int
	for _, v := range l.resolve(spec) {
		slots = append(slots, v.Slot)
	}
	return slots
}

// manyRoots says that it cannot be known which root is meant.
func (l *Layout) manyRoots(roots []Mounted) error {
	a, _ := l.Slot(roots[0].Slot)
	b, _ := l.Slot(roots[1].Slot)
	if a.Slot == b.Slot {
		return fault.New(fault.Image, "make one of them the default: btrfs subvolume set-default, on a copy of the image",
			"%s has %d subvolumes that each hold an operating system: %s and %s", a, len(roots),
			roots[0].Options[0], roots[1].Options[0])
	}
	return fault.New(fault.Image,
		"give the one that is meant the root type: sgdisk -t SLOT:8304 IMAGE (8305 for arm64)",
		"the image has %d roots: %s and %s each hold an operating system", len(roots), a, b)
}

// root is the root with what its own fstab says of how it is mounted.
func (i *Image) root(m Mounted, k kernelSays) (Mounted, error) {
	if m.Sub == "" {
		i.ostree, i.deployments = nil, nil // another volume has deployments
	}
	tree, err := i.treeAt(m)
	if err != nil {
		return m, err
	}
	said := etc.ParseFstab(etc.Read(tree, "etc/fstab"))
	at := slices.IndexFunc(said, func(s etc.Mount) bool { return s.Place == "/" })
	i.Layout.Disk = ""
	byName := func(s etc.Mount) bool { _, _, ok := partitionOf(s.What); return ok }
	if slices.ContainsFunc(said, byName) { // else nothing depends on what the disk is called
		for _, spec := range []string{k().root, specAt(said, at)} {
			if disk, _, ok := partitionOf(spec); ok {
				i.Layout.Disk = disk
			}
		}
	}
	if at < 0 || m.Sub != "" || len(kept(said[at].Options)) > 0 && k().noFstab {
		return m, nil
	}
	subvolume := func(o string) bool { return strings.HasPrefix(o, "subvol") }
	chosen := slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return !subvolume(o) })
	m.Options, m.From = kept(said[at].Options), "/etc/fstab"
	if len(chosen) > 0 && !slices.ContainsFunc(m.Options, subvolume) {
		m.Options = append(chosen, m.Options...)
	}
	return m, i.mount(m.part())[0]
}

func specAt(said []etc.Mount, at int) string {
	if at < 0 {
		return ""
	}
	return said[at].What
}

// hostFault tells an error of this machine, which lacks rights or loop devices,
// from one of the image.
func hostFault(err error) bool {
	for _, e := range []error{
		syscall.EPERM, syscall.EACCES, syscall.ENOENT, syscall.EBUSY, syscall.EMFILE, syscall.ENOMEM,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
