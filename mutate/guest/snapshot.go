package guest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/mount"
)

// fitrim is FITRIM of linux/fs.h, an ioctl on a mounted filesystem.
const fitrim = 0xC0185879

// freezeTime bounds a freeze. Only a filesystem whose disk hangs comes near.
const freezeTime = 60 * time.Second

// ErrLostWrites says that data which a step wrote never reached the store,
// most often because the store is full. The step itself has seen no error.
var ErrLostWrites = fault.New(fault.Host, "make room with imgmut gc, or use a store on a larger disk with --store",
	"what the step wrote was lost on the way to the store (is it full?)")

// hold opens the root of each filesystem of the guest that can be written to. The
// descriptors are taken before the first step and held: a write error is reported by
// syncfs(2) only to descriptors that were open when it happened.
func (g *Guest) hold(places []mount.Place) error {
	var err error
	if g.root, err = mount.OpenRoot(places); err != nil {
		return err
	}
	if err := checkLinks(g.root); err != nil {
		return err
	}
	held := map[int]bool{-1: true}
	for _, p := range places {
		if p.Mount == nil || held[p.Filesystem] {
			continue
		}
		held[p.Filesystem] = true
		m, err := reopen(p.Mount, unix.O_RDONLY, p.At)
		if err != nil {
			return err
		}
		g.mounts = append(g.mounts, m)
	}
	return nil
}

// reopen opens the root directory of a mount.
func reopen(m *os.File, flags int, name string) (*os.File, error) {
	fd, err := unix.Openat(int(m.Fd()), ".", flags|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the image's %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Sync makes all that was written to the guest's volumes be in the fork, or
// fails with [ErrLostWrites]. Space that was given back is discarded, so that a
// layer does not carry deleted data.
func (g *Guest) Sync() error {
	if err := g.Flush(); err != nil {
		return err
	}
	for _, m := range g.mounts {
		if err := trim(m); err != nil {
			return err
		}
	}
	return nil
}

// Flush is Sync that discards nothing: for whoever only looks into the fork.
func (g *Guest) Flush() error {
	for _, m := range g.mounts {
		if err := unix.Syncfs(int(m.Fd())); err != nil {
			return fmt.Errorf("sync the guest's %s: %w: %w", m.Name(), ErrLostWrites, err)
		}
	}
	return nil
}

// Settle makes the guest's volumes read-only for good. The fork is then as a
// clean unmount would leave it, and the guest is good for nothing but to be
// stopped, which the clone need not wait for.
func (g *Guest) Settle() error {
	if err := g.Sync(); err != nil {
		return err
	}
	for _, m := range slices.Backward(g.mounts) {
		if err := reconfigure(m, "ro"); err != nil {
			return fmt.Errorf("make the guest's %s read-only: %w", m.Name(), err)
		}
	}
	return nil
}

// reconfigure remounts a filesystem, not just one mount of it, from outside the guest
// (fspick(2)): with ro nobody can write to it, and with rw again.
func reconfigure(m *os.File, how string) error {
	fd, err := unix.Fspick(int(m.Fd()), "", unix.FSPICK_EMPTY_PATH|unix.FSPICK_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.FsconfigSetFlag(fd, how); err != nil {
		return err
	}
	return unix.FsconfigReconfigure(fd)
}

// Snapshot calls clone while nothing of the guest's volumes can change and all
// that was written to them is in the fork.
//
// A freeze costs some 50 ms, three grace periods of the kernel's RCU, unless
// there was one a moment ago. After the last step [Guest.Settle] does without.
func (g *Guest) Snapshot(clone func() error) error {
	if err := g.Sync(); err != nil {
		return err
	}
	var thaws []func() error
	thaw := func() (err error) {
		for _, t := range thaws {
			err = errors.Join(err, t())
		}
		thaws = nil
		return err
	}
	defer thaw() // on a panic as well
	for _, m := range g.mounts {
		t, err := still(m)
		if err != nil {
			return errors.Join(err, thaw())
		}
		thaws = append(thaws, t)
	}
	err := clone()
	return errors.Join(err, thaw())
}

// still writes out a filesystem so that nothing of it changes until thaw is called. One
// that cannot be frozen, as FAT, is read-only meanwhile. That also takes its mark of being
// in use off, which the kernel would not take off any more in a fork that has it.
func still(m *os.File) (thaw func() error, err error) {
	err = freeze(m)
	how, undo := "thaw", func() error { return mount.Unfreeze(int(m.Fd())) }
	if errors.Is(err, unix.EOPNOTSUPP) {
		if err = reconfigure(m, "ro"); err != nil {
			err = fmt.Errorf("make the guest's %s read-only: %w", m.Name(), err)
		}
		how, undo = "write again to", func() error { return reconfigure(m, "rw") }
	}
	if err != nil {
		return nil, err
	}
	return func() error {
		if err := undo(); err != nil {
			return fmt.Errorf("%s the guest's %s: %w", how, m.Name(), err)
		}
		return nil
	}, nil
}

// freeze writes out and stops a filesystem. A freeze that takes too long is
// undone when it comes to an end after all.
func freeze(m *os.File) error {
	// A descriptor of its own, because the call may take longer than the guest lives.
	fd, err := unix.FcntlInt(m.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("freeze the guest's %s: %w", m.Name(), err)
	}
	done := make(chan error, 1)
	go func() { done <- mount.Freeze(fd) }()
	select {
	case err := <-done:
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("freeze the guest's %s: %w: %w", m.Name(), ErrLostWrites, err)
		}
		return nil
	case <-time.After(freezeTime):
		go func() {
			if <-done == nil {
				mount.Unfreeze(fd)
			}
			unix.Close(fd)
		}()
		return fmt.Errorf("freeze the guest's %s: not done after %s", m.Name(), freezeTime)
	}
}

// trim discards what the filesystem does not use.
func trim(m *os.File) error {
	r := struct{ start, length, minimum uint64 }{length: ^uint64(0)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, m.Fd(), fitrim, uintptr(unsafe.Pointer(&r)))
	switch errno {
	case 0, unix.EOPNOTSUPP, unix.EROFS, unix.ENOTTY: // some filesystems have no use for it
		return nil
	}
	return fmt.Errorf("trim the guest's %s: %w", m.Name(), errno)
}
