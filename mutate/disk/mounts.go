package disk

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/mount"
)

// MountsVersion is part of every key: which mounts steps see decides what they do.
// Bump it when the same files come to give other mounts.
const MountsVersion = 7

// saidMounts are what fstab, mount units and the kernel's command line say. It is an error
// of class [fault.Image] if nothing would be seen of what a recipe does.
func saidMounts(tree fs.FS, line kernelLine) ([]etc.Mount, error) {
	if line.volatile {
		return nil, fault.New(fault.Image, "take systemd.volatile= out of it: of what a recipe does outside of /usr nothing would be seen",
			"the kernel's command line has systemd.volatile=yes: the system starts with /usr alone")
	}
	said, err := etc.Mounts(tree, line.text)
	if err != nil {
		return nil, fmt.Errorf("find what the system mounts: %w", err)
	}
	return said, nil
}

// findMounts gives what the system mounts at its start, of its files and the
// kernel's command line: what fstab and mount units say, /usr by the command line,
// and what systemd adds by the types of partitions. What is known already comes
// first: root, and /usr. It is an error of class [fault.Image] if it cannot be known
// which volume is meant.
func (l *Layout) findMounts(tree fs.FS, said []etc.Mount, k kernelLine, known ...Mounted) ([]Mounted, error) {
	mounts := slices.Clone(known)
	var masked []string
	for _, m := range said {
		if m.Masked {
			masked = append(masked, m.Place)
			continue
		}
		if m.Place == "/" && strings.HasPrefix(m.From, mounts[0].From) {
			mounts[0].From = m.From // with the line of fstab
		}
		if m.FS == "swap" || slices.ContainsFunc(mounts, at(m.Place)) {
			continue
		}
		mounted, err := l.place(m)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, mounted)
	}
	if usr, ok, err := l.usrMount(tree, k); err != nil {
		return nil, err
	} else if ok && !slices.ContainsFunc(mounts, at("/usr")) {
		mounts = append(mounts, usr)
	}
	mounts = append(mounts, slices.DeleteFunc(l.byType(tree, mounts, k), func(m Mounted) bool {
		return slices.Contains(masked, m.Mountpoint)
	})...)
	if err := l.usable(mounts[len(known):]); err != nil {
		return nil, err
	}
	mounts = inOrder(mounts)
	coverBinds(mounts)
	return mounts, nil
}

// inOrder puts mounts in the order in which the system makes them: each comes after those
// that its place lies in, and a bind after those that its directory lies in
// (RequiresMountsFor= in systemd.mount(5)). What is not so is by depth, and then as it is
// listed. / is first.
func inOrder(mounts []Mounted) []Mounted {
	mounts = slices.Clone(mounts)
	slices.SortStableFunc(mounts, func(a, b Mounted) int {
		return cmp.Compare(depth(a.Mountpoint), depth(b.Mountpoint))
	})
	ordered := make([]Mounted, 0, len(mounts))
	seen := make([]bool, len(mounts))
	var add func(n int)
	add = func(n int) {
		if seen[n] { // or a circle, which systemd breaks somewhere too
			return
		}
		seen[n] = true
		for k, other := range mounts {
			_, above := Within(mounts[n].Mountpoint, other.Mountpoint)
			_, shown := Within(mounts[n].Bind, other.Mountpoint)
			if above || shown {
				add(k)
			}
		}
		ordered = append(ordered, mounts[n])
	}
	for n := range mounts {
		add(n)
	}
	return ordered
}

// coverBinds says of a bind of a directory that another mount hides, or that is empty at
// each start, that it hides what the image has as well.
func coverBinds(mounts []Mounted) {
	for n, m := range mounts {
		if m.Bind == "" {
			continue
		}
		for _, dir := range fresh {
			if _, in := Within(m.Bind, dir); in {
				mounts[n].Cover = m.Bind + ", which is made anew at each start,"
			}
		}
		for _, other := range mounts[:n] {
			if _, in := Within(m.Bind, other.Mountpoint); in && other.Cover != "" && !other.ByHand {
				mounts[n].Cover = fmt.Sprintf("%s, on which %s is mounted,", m.Bind, other.Cover)
			}
		}
	}
}

// usable refuses mounts over what the system begins with: what is below is read before,
// and what a guest would see there is not all that counts.
func (l *Layout) usable(mounts []Mounted) error {
	for _, m := range mounts {
		switch {
		case m.ByHand:
		case m.Mountpoint == "/etc":
			return fault.New(fault.Image, "keep /etc in the root filesystem, as systemd does",
				"%s mounts something on /etc, of which the system reads the files before", m.From)
		case m.Mountpoint == "/usr" && m.Cover != "":
			return fault.New(fault.Image, "use a base with all of its system in it",
				"%s mounts %s on /usr: without that there is no system to run steps in", m.From, m.Cover)
		}
	}
	return nil
}

func at(place string) func(Mounted) bool {
	return func(m Mounted) bool { return m.Mountpoint == place }
}

// depth counts the directories that a path goes through.
func depth(place string) int {
	if place == "/" {
		return 0
	}
	return strings.Count(place, "/")
}

// place tells what a mount is of.
func (l *Layout) place(m etc.Mount) (Mounted, error) {
	p := Mounted{Mountpoint: m.Place, From: m.From, ByHand: !m.Starts}
	if m.Has("bind") || m.Has("rbind") {
		p.Bind, p.Recursive = path.Clean("/"+m.What), m.Has("rbind")
		return p, nil
	}
	if what := foreign(m); what != "" {
		p.Cover = what
		return p, nil
	}
	switch found := l.resolve(m.What); {
	case len(found) > 1 && m.Starts:
		return p, fault.New(fault.Image, "give each a name of its own in a copy of the image, or name it by PARTUUID= in "+m.From,
			"%s mounts %s on %s, and %s and %s both are that", m.From, m.What, m.Place, found[0], found[1])
	case len(found) == 0:
		p.Cover = "another disk (" + m.What + ")"
	case m.Starts && slices.ContainsFunc(m.Options, isSubdir):
		return p, fault.New(fault.Image, "have a subvolume or a bind mount show that directory",
			"%s mounts a directory of %s on %s (X-mount.subdir=): util-linux before 2.39 mounts all of it, and imgmut neither",
			m.From, found[0], m.Place)
	default:
		p.Slot, p.Options = found[0].Slot, kept(m.Options)
	}
	return p, nil
}

// foreign names what is mounted by its filesystem if that is of no disk, "" else.
func foreign(m etc.Mount) string {
	switch fs, _, _ := strings.Cut(m.FS, "."); fs {
	case "tmpfs", "ramfs":
		return "a " + fs + " (empty at each start)"
	case "nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "9p", "virtiofs", "afs":
		return "the network or the machine (" + m.FS + " " + m.What + ")"
	case "overlay", "fuse", "autofs", "zfs":
		return m.FS
	}
	return ""
}

// storing are the mount options that decide which files a filesystem shows, or how
// it stores what is written: others are no business of a guest's.
var storing = []string{
	"subvol", "subvolid", "compress", "compress-force", "nodatacow", "nodatasum", // btrfs
	"umask", "fmask", "dmask", "shortname", "iocharset", "utf8", "codepage", // vfat
}

// isSubdir says whether a mount option chooses a directory of a volume (mount(8)).
func isSubdir(option string) bool {
	return strings.HasPrefix(strings.ToLower(option), "x-mount.subdir=")
}

// kept picks those options.
func kept(options []string) []string {
	var list []string
	for _, o := range options {
		if name, _, _ := strings.Cut(o, "="); slices.Contains(storing, name) {
			list = append(list, o)
		}
	}
	return list
}

// usrMount is /usr if root has none: what the command line says, or else a partition
// that has the type for it. Of two versions the one with the higher name is meant
// (systemd.image(7)).
func (l *Layout) usrMount(tree fs.FS, k kernelLine) (Mounted, bool, error) {
	if etc.Exists(tree, "usr/lib") {
		return Mounted{}, false, nil
	}
	m := Mounted{Mountpoint: "/usr", From: "the kernel's command line", Options: kept(strings.Split(k.usrFlags, ","))}
	if k.usr != "" {
		switch found := l.resolve(k.usr); len(found) {
		case 0:
			return m, false, fault.New(fault.Image, "", "the kernel's command line has mount.usr=%s, which no volume of the image is", k.usr)
		default:
			m.Slot = found[0].Slot
			return m, true, nil
		}
	}
	if l.Table != GPT {
		return m, false, nil
	}
	m.From = fromType
	found := l.all(func(v *Volume) bool { return v.isUsr() && mount.Supported(v.FS) && !v.NoAuto })
	if len(found) == 0 {
		return m, false, nil
	}
	newest := slices.MaxFunc(found, func(a, b *Volume) int { return boot.CompareVersions(a.PartLabel, b.PartLabel) })
	m.Slot = newest.Slot
	return m, true, nil
}
