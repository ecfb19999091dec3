package disk

import (
	"io/fs"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/mount"
)

// findRoles finds root by what is in it, all that the system mounts by the files
// there, and of that what each volume is for.
func (i *Image) findRoles() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	l := i.Layout
	if slices.ContainsFunc(l.Mounts, at("/")) { // known from when it was looked into
		i.mountKnown()
		i.adding.Lock()
		defer i.adding.Unlock()
		return i.lookAgain()
	}
	files := i.eachVolume()
	root, err := i.findRoot(files)
	if err != nil {
		return err
	}
	i.adding.Lock()
	defer i.adding.Unlock()
	if l.Mounts, err = i.findMounts(root, files); err != nil {
		return err
	}
	l.Deployments = i.deployments
	l.giveRoles()
	system, _, err := i.systemTree()
	if err != nil {
		return err
	}
	l.OS, l.SELinux = osName(system), usesSELinux(system)
	l.Arch, err = machineArch(system)
	return err
}

// findMounts gives what the system mounts, and notes where. Some of its own mount units
// may be in a volume for /usr: then it looks again.
func (i *Image) findMounts(root Mounted, files volumeFiles) ([]Mounted, error) {
	tree, err := i.treeAt(root)
	if err != nil {
		return nil, err
	}
	i.cmdline = files.commandLine(tree)
	k := parseKernelLine(i.cmdline)
	known := append([]Mounted{root}, i.ostree...)
	if i.said, err = saidMounts(tree, k); err != nil {
		return nil, err
	}
	mounts, err := i.Layout.findMounts(tree, i.said, k, known...)
	if err != nil {
		return nil, err
	}
	if len(i.ostree) > 0 && !slices.ContainsFunc(mounts, at("/boot")) {
		boot := Mounted{Mountpoint: "/boot", Slot: root.Slot, Sub: "boot", From: i.ostree[0].From}
		mounts = slices.Insert(mounts, 1, boot)
	}
	n := slices.IndexFunc(mounts, at("/usr"))
	if n >= 0 && i.InSystem(mounts[n]) {
		if mounts, err = i.mountsWithUsr(tree, mounts[n], k, known); err != nil {
			return nil, err
		}
	}
	if mounts, i.where, err = i.inReality(mounts); err != nil {
		return nil, err
	}
	coverBinds(mounts)
	return mounts, nil
}

// mountsWithUsr are the mounts by the files of root and a volume for /usr.
func (i *Image) mountsWithUsr(tree *Tree, usr Mounted, k kernelLine, known []Mounted) ([]Mounted, error) {
	if i.guest == nil {
		if err := i.mount(usr.part())[0]; err != nil {
			return nil, err
		}
	}
	usrTree, err := i.treeAt(usr)
	if err != nil {
		return nil, err
	}
	both := withUsr{tree, usrTree}
	if i.said, err = saidMounts(both, k); err != nil {
		return nil, err
	}
	return i.Layout.findMounts(both, i.said, k, append(known, usr)...)
}

// withUsr is root with a volume on its /usr. A link of one leads into the other for those
// who follow it themselves, as [etc.Mounts] does.
type withUsr struct{ root, usr *Tree }

// Open implements [fs.FS].
func (w withUsr) Open(name string) (fs.File, error) {
	tree, name := w.at(name)
	return tree.Open(name)
}

// Stat implements [fs.StatFS].
func (w withUsr) Stat(name string) (fs.FileInfo, error) {
	tree, name := w.at(name)
	return tree.Stat(name)
}

// Lstat implements [fs.ReadLinkFS].
func (w withUsr) Lstat(name string) (fs.FileInfo, error) {
	tree, name := w.at(name)
	return tree.Lstat(name)
}

// ReadLink implements [fs.ReadLinkFS].
func (w withUsr) ReadLink(name string) (string, error) {
	tree, name := w.at(name)
	return tree.ReadLink(name)
}

// at is in which of the two a name is, and its name there.
func (w withUsr) at(name string) (*Tree, string) {
	if name == "usr" {
		return w.usr, "."
	}
	if below, ok := strings.CutPrefix(name, "usr/"); ok {
		return w.usr, below
	}
	return w.root, name
}

// volumeFiles are the files of each volume by itself, by slot, and why those of
// others cannot be read.
type volumeFiles struct {
	trees map[int]*Tree
	errs  []error
}

// eachVolume opens every volume that may be a root, or a /usr: each other driver is code
// that would run as root on the bytes of a stranger, for nothing.
func (i *Image) eachVolume() volumeFiles {
	files := volumeFiles{trees: map[int]*Tree{}}
	var parts []part
	for _, v := range i.Layout.Volumes {
		switch {
		case v.FS == "vfat":
			if t, err := i.fat(v); err == nil { // of another, verify will tell
				files.trees[v.Slot] = t
			}
		case mount.Writable(v.FS), mount.Supported(v.FS) && (v.isUsr() || v.isRoot()):
			parts = append(parts, part{slot: v.Slot})
		}
	}
	for n, err := range i.mount(parts...) {
		if err != nil {
			files.errs = append(files.errs, err)
			continue
		}
		files.trees[parts[n].slot] = treeOf(i.mounted[parts[n]])
	}
	return files
}

// commandLine is the kernel's, as a boot loader in any of the volumes has it. system
// are the files of root, as far as they are known.
func (f volumeFiles) commandLine(system fs.FS) string {
	var trees []fs.FS
	if system != nil {
		trees = append(trees, system)
	}
	for _, slot := range f.slots() {
		trees = append(trees, f.trees[slot])
	}
	return boot.CommandLine(trees...)
}

// slots are those of volumes with files, in order.
func (f volumeFiles) slots() []int {
	var slots []int
	for slot := range f.trees {
		slots = append(slots, slot)
	}
	slices.Sort(slots)
	return slots
}

// giveRoles gives each volume its role and its place by what the system mounts, or
// by its type where it mounts nothing.
func (l *Layout) giveRoles() {
	for n := range l.Volumes {
		v := &l.Volumes[n]
		v.Role, v.Mountpoint = "", ""
		for _, m := range l.Mounts {
			if m.OfVolume() && m.Slot == v.Slot && (!m.ByHand || strings.HasPrefix(m.Mountpoint, "/boot")) {
				role := roleAt(m.Mountpoint)
				if v.Mountpoint == "" || v.Role == "" && role != "" {
					v.Mountpoint = m.Mountpoint
				}
				if v.Role == "" {
					v.Role = role
				}
			}
		}
		switch {
		case v.isESP():
			v.Role = ESP
		case v.FS == "swap":
			v.Role = Swap
		}
	}
}

// roleAt is what a volume is for by its place in the system.
func roleAt(place string) Role {
	switch place {
	case "/":
		return Root
	case "/boot":
		return Boot
	case "/usr":
		return Usr
	case "/home":
		return Home
	case "/srv":
		return Srv
	case "/var":
		return Var
	case "/boot/efi", "/efi":
		return ESP
	}
	return ""
}
