package disk

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/imgmut/imgmut/mutate/mount"
)

// Replay has the kernel replay the journals and logs of volumes, as at the next start
// of the machine, by mounting each for writing. The image is a fork, of which nothing
// was read yet. Volumes that have no journal are left alone.
func (i *Image) Replay(volumes []Volume) error {
	return i.mountWritable(volumes, func(Volume, *os.File) error { return nil })
}

// Grow has the kernel make the filesystem of a volume as large as the volume, as
// [mount.Grow] does. The image is a fork, as that of [Image.Replay].
func (i *Image) Grow(ctx context.Context, v Volume) error {
	return i.mountWritable([]Volume{v}, func(v Volume, m *os.File) error { return mount.Grow(ctx, m, v.FS, v.Size) })
}

// mountWritable mounts volumes for writing, and calls use with each of those that were.
func (i *Image) mountWritable(volumes []Volume, use func(v Volume, m *os.File) error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.detach(); err != nil {
		return err
	}
	i.access, i.dirty = ReadWrite, nil
	defer func() { i.access = ReadOnly }()
	var parts []part
	for _, v := range volumes {
		if mount.Writable(v.FS) && v.FS != "vfat" {
			parts = append(parts, part{slot: v.Slot})
		}
	}
	errs := i.mount(parts...)
	for _, v := range volumes {
		if m := i.mounted[part{slot: v.Slot}]; m != nil {
			errs = append(errs, use(v, m))
		}
	}
	return errors.Join(append(errs, i.detach())...)
}

// Unreplayed are the volumes whose journal, or log tree, still holds changes: the
// image is of a system that was running. What is read of them is as it was before
// those. It is complete after FindRoles.
func (i *Image) Unreplayed() []Volume {
	i.mu.Lock()
	defer i.mu.Unlock()
	var volumes []Volume
	for _, v := range i.Layout.Volumes {
		if slices.Contains(i.dirty, v.Slot) {
			volumes = append(volumes, v)
		}
	}
	return volumes
}
