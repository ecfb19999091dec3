package mutate

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/loop"
	"github.com/imgmut/imgmut/mutate/store"
)

// machineLocks is where the locks are that all stores of a machine share:
// there is one kernel to mount filesystems, and one machined.
const machineLocks = "/run/imgmut"

// lockMachine takes a lock of the whole machine, and tells the user if that means
// to wait, for which reason.
func (e *Engine) lockMachine(ctx context.Context, name, reason string) (unlock func(), err error) {
	if err := os.MkdirAll(machineLocks, 0o755); err != nil {
		return nil, err
	}
	return store.LockFile(ctx, filepath.Join(machineLocks, name+".lock"), func() { e.note("waiting: another imgmut " + reason) })
}

// uses says whether an image has a volume with that filesystem.
func uses(l *disk.Layout, fs string) bool {
	return slices.ContainsFunc(l.Volumes, func(v disk.Volume) bool { return v.FS == fs })
}

// assignRoles mounts what may be root to look for one.
func (e *Engine) assignRoles(ctx context.Context, l *disk.Layout, f *os.File) error {
	unlock, err := e.lockFilesystems(ctx, l, "", "btrfs")
	if err != nil {
		return err
	}
	defer unlock()
	return l.AssignRoles(f)
}

// lockFilesystems waits until no other imgmut on this machine has a filesystem
// of one of these kinds with one of the image's UUIDs mounted: the kernel
// refuses to mount two forks of one XFS at a time, and before Linux 6.7 two of
// one btrfs. For an XFS that is systemd-nspawn alone: imgmut's own mounts are
// made with nouuid. fork is what a guest is about to be started over; it is
// empty for imgmut's own mounts, which end with the process.
func (e *Engine) lockFilesystems(ctx context.Context, l *disk.Layout, fork string, kinds ...string) (unlock func(), err error) {
	var unlocks []func()
	unlock = func() {
		for _, u := range unlocks {
			u()
		}
	}
	var uuids []string
	for _, v := range l.Volumes {
		if slices.Contains(kinds, v.FS) && v.UUID != "" {
			uuids = append(uuids, v.UUID)
		}
	}
	if len(uuids) == 0 {
		return unlock, nil
	}
	slices.Sort(uuids) // in one order, or two builds could wait for each other
	for _, u := range slices.Compact(uuids) {
		one, err := e.lockFilesystem(ctx, u, fork)
		if err != nil {
			unlock()
			return nil, fmt.Errorf("wait for other forks of filesystem %s: %w", u, err)
		}
		unlocks = append(unlocks, one)
	}
	return unlock, nil
}

// lockFilesystem takes the lock of one UUID. Beside it stands which fork is
// mounted: who is killed loses the lock at once, but the kernel has the mount
// for a while, or until somebody thaws it, and the next to come must see to that.
func (e *Engine) lockFilesystem(ctx context.Context, uuid, fork string) (unlock func(), err error) {
	release, err := e.lockMachine(ctx, "filesystem-"+uuid, "has a fork of the same filesystem mounted")
	if err != nil {
		return nil, err
	}
	note := filepath.Join(machineLocks, "filesystem-"+uuid+".mounted")
	if left, err := os.ReadFile(note); err == nil {
		if err := loop.Recover(string(left)); err != nil {
			release()
			return nil, err
		}
		os.Remove(note)
	}
	if fork == "" {
		return release, nil
	}
	if err := os.WriteFile(note, []byte(fork), 0o600); err != nil {
		release()
		return nil, err
	}
	return func() {
		// The kernel lets go of a mount some time after the guest has ended.
		if loop.Recover(fork) == nil {
			os.Remove(note)
		}
		release()
	}, nil
}
