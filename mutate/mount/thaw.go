package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ioctls on a mounted filesystem (linux/fs.h).
const (
	fifreeze = 0xC0045877
	fithaw   = 0xC0045878
)

// Freeze writes out the filesystem that a descriptor is on and stops it. It
// stays frozen, even when nothing has it open any more, until [Unfreeze].
func Freeze(fd int) error { return unix.IoctlSetInt(fd, fifreeze, 0) }

// Unfreeze ends what [Freeze] began. It is EINVAL if nothing is frozen.
func Unfreeze(fd int) error { return unix.IoctlSetInt(fd, fithaw, 0) }

// recoverTime bounds the wait for what held a fork to end. It is dead already.
const recoverTime = 10 * time.Second

// Recover lets go of a fork whose owner was killed: it ends a freeze, and waits
// until the mounts of the dead have ended and no loop device names path. It is
// no error if there is nothing to let go of, nor if the file is gone.
func Recover(ctx context.Context, path string) error {
	if f, err := os.Open(path); err == nil {
		err = Thaw(f)
		f.Close()
		if err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, recoverTime)
	defer cancel()
	return WaitReleased(ctx, path)
}

// Thaw ends a freeze of the filesystems on the loop device that f is attached
// to, if there are any. A filesystem that was frozen when its last mount went,
// because whoever froze it was killed, stays with its device until then: the
// freeze holds it. Mounting the device again reaches the frozen filesystem.
func Thaw(f *os.File) error {
	device, err := FindLoop(f)
	if err != nil || device == "" {
		return err
	}
	parts, err := filepath.Glob(device + "p*") // those that systemd-nspawn added
	if err != nil {
		return err
	}
	var errs []error
	for _, node := range append(parts, device) {
		if !inUse(node) {
			continue
		}
		for _, fs := range []string{"ext4", "xfs", "btrfs"} {
			if err := thawOne(node, fs); err != nil {
				errs = append(errs, fmt.Errorf("thaw %s: %w", node, err))
			}
		}
	}
	return errors.Join(errs...)
}

// inUse says whether a device may have a filesystem mounted: that opens it for
// itself alone (O_EXCL, see open(2)). One that has none is not to be mounted here,
// which could stand in the way of another fork of it that somebody mounts under
// the lock of its UUID. A mount of one that has only reaches what is mounted.
func inUse(node string) bool {
	f, err := os.OpenFile(node, os.O_RDONLY|unix.O_EXCL, 0)
	if err == nil {
		f.Close()
	}
	return errors.Is(err, unix.EBUSY)
}

// thawOne mounts a device where nobody sees it and thaws what it gets. That
// the device holds something else, or nothing frozen, is no error.
func thawOne(node, fs string) error {
	m, err := Detached(Request{Device: node, FS: fs})
	if err != nil {
		return nil
	}
	defer m.Close()
	// m is an O_PATH descriptor, and ioctls need another.
	root, err := unix.Openat(int(m.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	if err := Unfreeze(root); err != nil && err != unix.EINVAL { // not frozen
		return err
	}
	return nil
}
