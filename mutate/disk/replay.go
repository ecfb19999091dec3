package disk

import (
	"errors"
	"slices"

	"github.com/imgmut/imgmut/mutate/mount"
)

// Replay has the kernel replay the journals and logs of volumes, as at the next start
// of the machine, by mounting each for writing. The image is a fork, of which nothing
// was read yet. Volumes that have no journal are left alone.
func (i *Image) Replay(volumes []Volume) error {
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
	err := errors.Join(i.mount(parts...)...)
	return errors.Join(err, i.detach())
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
