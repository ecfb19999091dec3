package disk

import (
	"io/fs"
	"strings"
	"sync"

	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/mount"
)

// Loaders is what the boot loaders of the image say. It is read once as long as nothing
// writes to the image.
func (i *Image) Loaders() (*boot.Loaders, error) {
	if err := i.FindRoles(); err != nil {
		return nil, err
	}
	i.mu.Lock()
	read := i.loaders
	if i.guest != nil && mount.KernelHas("vfat") {
		clear(i.fats) // the kernel may have written to them since
	}
	if read == nil {
		places, err := i.bootPlaces()
		if err != nil {
			i.mu.Unlock()
			return nil, err
		}
		read = sync.OnceValue(func() *boot.Loaders { return boot.Read(places) })
		if i.guest == nil { // which may change what they say
			i.loaders = read
		}
	}
	i.mu.Unlock()
	return read(), nil
}

// bootPlaces are the trees in which something for the start may be: what a boot loader
// names is a path in its own volume, so each volume that the system mounts is one, as
// well as all of them together. One that cannot be read is told of by whoever asks for Trees.
func (i *Image) bootPlaces() (all []boot.Place, err error) {
	trees, _, err := i.trees()
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

// NamedAtBoot are the files below a tree's root that boot loaders read, wherever they
// lie: those of the system's tree, in which all volumes are. FAT is read as a whole.
func (i *Image) NamedAtBoot(t Placed) ([]string, error) {
	if t.At != "/" {
		return nil, nil
	}
	loaders, err := i.Loaders()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range loaders.Files() {
		if below, ok := strings.CutPrefix(name, "/"); ok && fs.ValidPath(below) {
			names = append(names, below)
		}
	}
	return names, nil
}
