package mutate

import (
	"context"
	"os"
	"slices"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/lock"
	"github.com/imgmut/imgmut/mutate/mount"
)

// lockMachine takes a lock of the whole machine, and tells the user if that means
// to wait, for which reason.
func (e *Engine) lockMachine(ctx context.Context, name, reason string) (unlock func(), err error) {
	return lock.Machine(ctx, name, func() { e.note("waiting: another imgmut " + reason) })
}

// uses says whether an image has a volume with that filesystem.
func uses(l *disk.Layout, fs string) bool {
	return slices.ContainsFunc(l.Volumes, func(v disk.Volume) bool { return v.FS == fs })
}

// assignRoles mounts what may be root to look for one.
func (e *Engine) assignRoles(ctx context.Context, l *disk.Layout, f *os.File) error {
	unlock, err := e.lockFilesystems(ctx, l, "")
	if err != nil {
		return err
	}
	defer unlock()
	return l.AssignRoles(f)
}

// lockFilesystems waits until the image's filesystems can be mounted; see
// [mount.Claim]. fork is what a guest is about to be started over; it is empty
// for imgmut's own mounts.
func (e *Engine) lockFilesystems(ctx context.Context, l *disk.Layout, fork string) (unlock func(), err error) {
	claim := mount.Claim{Fork: fork, Note: e.note}
	for _, v := range l.Volumes {
		claim.Filesystems = append(claim.Filesystems, mount.Filesystem{Type: v.FS, UUID: v.UUID})
	}
	return claim.Lock(ctx)
}
