package disk

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/mount"
)

// On a kernel without vfat a guest finds an empty place that nobody can write to where
// the system mounts a FAT volume. What is to be read and written there goes past the
// guest, to the volume itself. Which places these are is decided here alone.

// sealed says whether a guest finds an empty place in place of a mount.
func (i *Image) sealed(m Mounted) bool {
	v, ok := i.Layout.Slot(m.Slot)
	return ok && m.OfVolume() && !m.ByHand && v.FS == "vfat" && !i.mountable(m) && !i.Layout.covered(m.Mountpoint)
}

// Sealed are the mounts of which a guest sees nothing.
func (i *Image) Sealed() []Mounted {
	i.mu.Lock()
	defer i.mu.Unlock()
	var list []Mounted
	for _, m := range i.Layout.Mounts {
		if i.sealed(m) {
			list = append(list, m)
		}
	}
	return list
}

// MountsFAT says whether a guest has a FAT volume mounted. All others read such a volume
// from the fork, and there is only what the kernel has written out.
func (i *Image) MountsFAT() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.ContainsFunc(i.Layout.Mounts, func(m Mounted) bool {
		v, ok := i.Layout.Slot(m.Slot)
		return ok && v.FS == "vfat" && i.mountable(m)
	})
}

// sealedNote says in an empty place why it is there.
func sealedNote(m Mounted, v Volume) string {
	return fmt.Sprintf("imgmut: %s is %s, and the kernel of the machine that builds this image has no vfat.\n"+
		"Steps of the kinds write, copy and their like can change it; commands cannot.", m.Mountpoint, v)
}

// SealedPath is where in a FAT volume a path of the system leads to that a guest
// cannot go.
type SealedPath struct {
	Volume
	Mount Mounted
	Name  string // in the volume, "." for its root
}

// SealedPath finds out whether a path is in a FAT volume that a guest cannot see.
// system are the files of the guest, whose symbolic links are followed: that of
// the path itself only if follow says so.
func (i *Image) SealedPath(system *Tree, name string, follow bool) (p SealedPath, ok bool) {
	places := i.Sealed()
	if len(places) == 0 {
		return p, false
	}
	name = system.realPath(name, follow)
	for _, m := range i.Layout.Mounts { // a bind is like a link
		if below, ok := Within(name, m.Mountpoint); ok && m.Bind != "" && !m.ByHand {
			name = system.realPath(path.Join(m.Bind, below), follow)
		}
	}
	for _, m := range places { // those that lie in others come last
		below, in := Within(name, system.realPath(m.Mountpoint, true))
		if v, found := i.Layout.Slot(m.Slot); in && found {
			p, ok = SealedPath{v, m, below}, true
		}
	}
	return p, ok
}

// Within gives the rest of a path that is in a directory, "." for that directory.
func Within(name, dir string) (below string, ok bool) {
	if name == dir {
		return ".", true
	}
	return strings.CutPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// maxLinks is how many symbolic links are followed on the way to one file, as by the
// kernel (path_resolution(7)).
const maxLinks = 40

// realPath is a path of the system without symbolic links, but for the last name
// unless follow says so. What is missing on the way stays as it is said.
func (t *Tree) realPath(name string, follow bool) string {
	return followLinks(name, follow, func(name string) (string, bool) {
		target, err := t.ReadLink(strings.TrimPrefix(name, "/"))
		return target, err == nil
	})
}

func split(name string) []string {
	return strings.FieldsFunc(name, func(r rune) bool { return r == '/' })
}

// findFAT finds a file of a FAT volume, in which the case of letters makes no other
// name. found is its own name.
func findFAT(t *Tree, name string) (found string, fi fs.FileInfo, err error) {
	found = "."
	for _, part := range split(name) {
		if part == "." {
			continue
		}
		if fi != nil && !fi.IsDir() {
			return "", nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		list, err := t.ReadDir(found)
		if err != nil {
			return "", nil, err
		}
		fi = nil
		for _, e := range list {
			if strings.EqualFold(e.Name(), part) {
				found = path.Join(found, e.Name())
				if fi, err = e.Info(); err != nil {
					return "", nil, err
				}
				break
			}
		}
		if fi == nil {
			return "", nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
	}
	return found, fi, nil
}

// StatFAT describes a file of a FAT volume; the info is nil for the root directory.
// The case of letters does not count. A file that is not there is an
// [fs.ErrNotExist].
func (i *Image) StatFAT(v Volume, name string) (fs.FileInfo, error) {
	t, err := i.OpenFAT(v)
	if err != nil {
		return nil, err
	}
	_, fi, err := findFAT(t, name)
	return fi, err
}

// maxFATFile is how much of a file is read at once, in bytes.
const maxFATFile = 64 << 20

// ReadFAT reads a file of a FAT volume, found as by [Image.StatFAT].
func (i *Image) ReadFAT(v Volume, name string) ([]byte, error) {
	t, err := i.OpenFAT(v)
	if err != nil {
		return nil, err
	}
	found, fi, err := findFAT(t, name)
	if err != nil {
		return nil, err
	}
	if fi == nil || fi.IsDir() {
		return nil, fmt.Errorf("read %s: not a regular file", name)
	}
	if fi.Size() > maxFATFile {
		return nil, fmt.Errorf("read %s: more than the %d bytes that are read at once", name, maxFATFile)
	}
	return t.ReadFile(found)
}

// mountable says whether the kernel mounts what is mounted there at the start.
func (i *Image) mountable(m Mounted) bool {
	v, ok := i.Layout.Slot(m.Slot)
	return ok && m.OfVolume() && !m.ByHand && mount.Supported(v.FS) && (v.FS != "vfat" || mount.KernelHas("vfat"))
}
