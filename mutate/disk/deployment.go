package disk

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"syscall"

	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/ostree"
)

// A system of ostree is no tree on a disk. It is a deployment, one of several
// directories of a volume that has a repository, and the system sees it as its root
// (ostree-prepare-root(1)): read-only, but for an /etc of its own and a /var that all
// deployments of one operating system share. The whole of the volume is on /sysroot.

// fromDeployment is what says so.
const fromDeployment = "ostree's deployment"

// deployment gives what the system mounts of a volume with deployments, / first: the one
// that the boot loader starts by default.
func (i *Image) deployment(v Volume, tree *Tree, files volumeFiles, k kernelSays) ([]Mounted, error) {
	list, err := ostree.Find(tree, files.entries(v.Slot), k().ostree)
	if half := files.halfSwapped(); err != nil && k().ostree == "" && half != "" {
		err = fmt.Errorf("%w: there is %s, and no link loader to it", err, half)
	}
	if err != nil {
		return nil, fault.New(fault.Image, "", "%s holds deployments of ostree, but %w", v, err)
	}
	i.deployments = list
	d := list[0]
	prepared := d.Prepared(tree)
	if prepared.Transient != "" {
		return nil, fault.New(fault.Image, "make what is to stay in the container image, or leave transient out of prepare-root.conf",
			"%s holds deployments of ostree, but what steps change in %s would be gone when it starts (prepare-root.conf: transient)",
			v, prepared.Transient)
	}
	mounts := []Mounted{
		{Mountpoint: "/", Slot: v.Slot, Sub: d.Dir(), ReadOnly: true, From: fromDeployment},
		{Mountpoint: "/etc", Slot: v.Slot, Sub: path.Join(d.Dir(), "etc"), From: fromDeployment},
		{Mountpoint: "/sysroot", Slot: v.Slot, Sub: ".", ReadOnly: prepared.ReadOnly, From: fromDeployment},
		{Mountpoint: "/var", Slot: v.Slot, Sub: d.Var(), From: fromDeployment},
	}
	return mounts, i.mount(mounts[0].part())[0]
}

// entries are those of the boot loaders in any of the volumes, of which root is the one
// with the slot of that.
func (f volumeFiles) entries(root int) []boot.Entry {
	var places []boot.Place
	for _, slot := range f.slots() {
		p := boot.Place{FS: f.trees[slot]}
		switch {
		case slot == root:
			p.At = "/"
		case etc.Exists(p.FS, "loader/entries"):
			p.At = "/boot"
		}
		places = append(places, p)
	}
	entries, _ := boot.Entries(places) // what cannot be read says nothing
	return entries
}

// halfSwapped gives a directory of loader entries to which there is no link: ostree makes
// the link to the new one last, and was stopped. It is "" if there is none.
func (f volumeFiles) halfSwapped() string {
	for _, slot := range f.slots() {
		for _, name := range []string{"loader", "boot/loader"} {
			for _, version := range []string{".0", ".1"} {
				if !etc.Exists(f.trees[slot], name) && etc.Exists(f.trees[slot], name+version) {
					return name + version
				}
			}
		}
	}
	return ""
}

// Deployed gives the directory of the deployment that is the system's root in its volume,
// "" if it is none.
func (l *Layout) Deployed() string {
	n := slices.IndexFunc(l.Mounts, func(m Mounted) bool { return m.Mountpoint == "/" && m.From == fromDeployment })
	if n < 0 {
		return ""
	}
	return l.Mounts[n].Sub
}

// ChangeSysroot opens the volume with the image's deployments for the machine's ostree,
// with the volume on its /boot and with further directories, and calls change. As with
// [Image.Change] nothing else is mounted meanwhile, and all is read anew afterwards: also
// which deployment the system is.
func (i *Image) ChangeSysroot(further map[string]*os.File, change func(*ostree.Sysroot) error) error {
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
	err := i.changeSysroot(further, change)
	i.access = ReadOnly
	err = errors.Join(err, i.detach())
	i.forget()
	return err
}

func (i *Image) changeSysroot(further map[string]*os.File, change func(*ostree.Sysroot) error) (err error) {
	root, _ := i.Layout.Find(Root)
	at := part{slot: root.Slot}
	if err := i.mount(at)[0]; err != nil {
		return err
	}
	o := ostree.Options{Root: i.mounted[at], Directories: further}
	if v, ok := i.Layout.Find(Boot); ok && v.Slot != root.Slot {
		if err := i.mount(part{slot: v.Slot})[0]; err != nil {
			return err
		}
		o.Boot = i.mounted[part{slot: v.Slot}]
	}
	s, err := ostree.Open(o)
	if err != nil {
		return err
	}
	if err = change(s); err == nil {
		err = s.Sync()
	}
	return errors.Join(err, s.Close())
}

// forget makes what the system mounts be found anew.
func (i *Image) forget() {
	i.adding.Lock()
	defer i.adding.Unlock()
	i.Layout.Mounts = nil
	i.ostree, i.deployments = nil, nil
	i.roles = onceRoles(i)
}

// Unwritable says whether a path leads to where the system cannot write to a volume of the
// image. system are its files, whose links are followed.
func (l *Layout) Unwritable(system *Tree, name string) bool {
	if name = system.realPath(name, true); isFresh(name) {
		return false
	}
	var innermost Mounted
	for _, m := range l.Mounts {
		if _, in := Within(name, m.Mountpoint); in && !m.ByHand && len(m.Mountpoint) >= len(innermost.Mountpoint) {
			innermost = m
		}
	}
	return innermost.ReadOnly
}

// otherDeployments are the trees of the deployments that are not the system, each as it
// is at its start but for what is mounted in it. They are part of the image as the system
// is: somebody may go back to them. root is the volume of that.
func (i *Image) otherDeployments(root Volume) (trees []Placed, err error) {
	is := i.Layout.Deployed()
	if is == "" {
		return nil, nil
	}
	at := part{slot: root.Slot}
	if i.guest == nil {
		if err := i.mount(at)[0]; err != nil {
			return nil, err
		}
	}
	volume, err := i.view(at)
	if err != nil {
		return nil, err
	}
	dirs, err := ostree.Directories(treeOf(volume))
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		if dir == is {
			continue
		}
		t, err := i.treeAt(Mounted{Slot: root.Slot, Sub: dir})
		if err != nil {
			return nil, err
		}
		trees = append(trees, Placed{path.Join("/sysroot", dir), t, root})
	}
	return trees, nil
}

// IsObject says whether a file of a tree may be one of the objects of a repository of
// ostree: whoever writes to it writes to all that are links to it.
func (i *Image) IsObject(t Placed, name string) bool {
	if i.Layout.Deployed() == "" || t.Volume.FS == "vfat" {
		return false
	}
	fi, err := t.Stat(name)
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && st.Nlink > 1
}
