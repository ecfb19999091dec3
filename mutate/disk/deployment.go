package disk

import (
	"errors"
	"os"
	"path"
	"slices"

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

// Deployed gives the directory of the deployment that is the system's root in its volume,
// "" if it is none.
func (l *Layout) Deployed() string {
	n := slices.IndexFunc(l.Mounts, func(m Mounted) bool { return m.Mountpoint == "/" && m.From == fromDeployment })
	if n < 0 {
		return ""
	}
	return l.Mounts[n].Sub
}

// FindDeployments finds the deployments of an image as its files are now, the default
// first. There are none if its system is no such.
func (i *Image) FindDeployments() ([]ostree.Deployment, error) {
	if err := i.FindRoles(); err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	root, _ := i.Layout.Find(Root)
	if i.Layout.Deployed() == "" {
		return nil, nil
	}
	files := i.eachVolume()
	if err := errors.Join(files.errs...); err != nil {
		return nil, err
	}
	return ostree.Find(files.trees[root.Slot], files.entries(root.Slot), ostree.Starts(i.cmdline))
}

// ChangeSysroot opens the volume with the image's deployments for the machine's ostree,
// with the volume on its /boot and with further directories, and calls change. As with [Image.Change] nothing else is
// mounted meanwhile, and all is read anew afterwards: also which deployment the system is.
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

// Innermost gives the mount that shows a path, if the system mounts anything of the image
// there.
func (l *Layout) Innermost(name string) (found Mounted, ok bool) {
	for _, m := range l.Mounts {
		if _, in := Within(name, m.Mountpoint); in && !m.ByHand && len(m.Mountpoint) >= len(found.Mountpoint) {
			found, ok = m, true
		}
	}
	return found, ok
}
