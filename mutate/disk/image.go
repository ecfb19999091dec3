package disk

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"

	"github.com/imgmut/imgmut/mutate/mount"
)

// Image is an image that is open: what is in it, the locks that its filesystems
// need, and the trees of its volumes, each mounted once and only if somebody
// asks for it. Its methods may be called from several goroutines.
type Image struct {
	File *os.File
	// Layout has the volumes and their filesystems. What needs a look into them
	// (roles, the operating system, mounts) is there after FindRoles.
	Layout *Layout

	unlock func()
	mu     sync.Mutex
	trees  map[int]*Tree // by slot
	roles  func() error
	adding sync.Mutex // of roles to Layout, once the volumes are mounted, which takes longer
}

// Open looks into an image that is not known yet. note is told if another
// imgmut has to be waited for. It is an error of class [fault.Image] if the
// image is damaged. The caller keeps f open until Close.
func Open(ctx context.Context, f *os.File, note func(string)) (*Image, error) {
	l, err := List(ctx, f)
	if err != nil {
		return nil, err
	}
	return OpenKnown(ctx, f, l, note)
}

// OpenKnown opens an image of which the layout is known, roles and all: it is a
// fork of one that was looked into.
func OpenKnown(ctx context.Context, f *os.File, l *Layout, note func(string)) (*Image, error) {
	unlock, err := mount.Claim{Filesystems: l.Filesystems(), Note: note}.Lock(ctx)
	if err != nil {
		return nil, err
	}
	i := &Image{File: f, Layout: l, unlock: unlock, trees: map[int]*Tree{}}
	i.roles = sync.OnceValue(i.findRoles)
	return i, nil
}

// Filesystems are those of the image, as the kernel tells them apart.
func (l *Layout) Filesystems() []mount.Filesystem {
	var all []mount.Filesystem
	for _, v := range l.Volumes {
		if v.FS != "" {
			all = append(all, mount.Filesystem{Type: v.FS, UUID: v.UUID})
		}
	}
	return all
}

// Tree gives the files of a volume, read-only. They are the image's: the caller
// does not close them.
func (i *Image) Tree(v Volume) (*Tree, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.tree(v)
}

func (i *Image) tree(v Volume) (*Tree, error) {
	if t, ok := i.trees[v.Slot]; ok {
		return t, nil
	}
	t, err := v.Open(i.File, ReadOnly)
	if err == nil {
		i.trees[v.Slot] = t
	}
	return t, err
}

// Write opens the files of a volume for writing, which replays its journal. What
// was read of the volume before is let go of first: one filesystem is not
// mounted in two ways. The caller closes the tree.
func (i *Image) Write(v Volume) (*Tree, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if t, ok := i.trees[v.Slot]; ok {
		delete(i.trees, v.Slot)
		if err := t.Close(); err != nil {
			return nil, err
		}
	}
	return v.Open(i.File, ReadWrite)
}

// Volumes are the image's, as they are known now: roles may be found meanwhile.
func (i *Image) Volumes() []Volume {
	i.adding.Lock()
	defer i.adding.Unlock()
	return slices.Clone(i.Layout.Volumes)
}

// FindRoles looks into the volumes for what each is for, once. It is an error of
// class [fault.Image] if there is no root, or more than one.
func (i *Image) FindRoles() error { return i.roles() }

// Close unmounts what was mounted and gives the locks back.
func (i *Image) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	var errs []error
	for slot, t := range i.trees {
		errs = append(errs, t.Close())
		delete(i.trees, slot)
	}
	i.unlock()
	return errors.Join(errs...)
}
