package machined

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupPrefix begins the name of every private host's cgroup.
const cgroupPrefix = "imgmut-"

// cgroup is the cgroup2 directory of one private host. Its owner holds a lock
// on it: that tells a live one from what a killed imgmut left behind, also
// between containers that share a hierarchy but not their process ids.
type cgroup struct {
	own  *os.File // see mountOwnCgroup
	path string   // below own's entry in /proc/self/fd
	dir  *os.File // open and locked
}

// newCgroup makes a cgroup for a private host below this process' own, so that
// the limits of that hold for the host too. It first removes what killed
// processes left there.
func newCgroup() (*cgroup, error) {
	own, err := mountOwnCgroup()
	if err != nil {
		return nil, err
	}
	parent := pathOf(own)
	sweepCgroups(parent)
	c, err := makeCgroup(parent)
	if err != nil {
		_ = own.Close()
		return nil, fmt.Errorf("make a cgroup: %w", err)
	}
	c.own = own
	return c, nil
}

// pathOf names an open directory.
func pathOf(dir *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", dir.Fd()) }

// mountOwnCgroup returns a mount of the cgroup2 hierarchy from this process' own
// cgroup downwards. It is attached to no directory, and ends when the file is
// closed. So it does not matter where the machine has cgroup2 mounted, or
// whether at all, or read-only as in many containers.
//
// The mount is made from a new cgroup namespace. From the machine's it would
// reset nsdelegate and the other flags of the hierarchy for the whole machine
// (kernel/cgroup/cgroup.c:apply_cgroup_root_flags).
func mountOwnCgroup() (*os.File, error) {
	type result struct {
		fd  int
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: no other goroutine may get this namespace
		fd, err := mountCgroup2()
		made <- result{fd, err}
	}()
	r := <-made
	if r.err != nil {
		return nil, fmt.Errorf("mount cgroup2: %w", r.err)
	}
	return os.NewFile(uintptr(r.fd), "cgroup2"), nil
}

func mountCgroup2() (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return -1, fmt.Errorf("unshare cgroup namespace: %w", err)
	}
	fd, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	if err := unix.FsconfigCreate(fd); err != nil {
		return -1, err
	}
	return unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

// makeCgroup makes and locks a cgroup. Another imgmut may sweep it away in the
// moment before it is locked; then this one makes another.
func makeCgroup(parent string) (*cgroup, error) {
	for range 8 {
		path := filepath.Join(parent, fmt.Sprintf("%s%d-%s", cgroupPrefix, os.Getpid(), rand.Text()[:8]))
		if err := os.Mkdir(path, 0o755); err != nil {
			return nil, err
		}
		dir, err := lockCgroup(path)
		if err == nil {
			if _, err = os.Stat(path); err == nil {
				return &cgroup{path: path, dir: dir}, nil
			}
			_ = dir.Close()
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EWOULDBLOCK) {
			_ = os.Remove(path)
			return nil, err
		}
	}
	return nil, fmt.Errorf("lock a cgroup in %s: others keep removing it", parent)
}

// lockCgroup opens a cgroup and locks it without waiting. The kernel drops the
// lock with the last descriptor, so also when its holder is killed.
func lockCgroup(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = dir.Close()
		return nil, &fs.PathError{Op: "flock", Path: path, Err: err}
	}
	return dir, nil
}

// sweepCgroups removes the private hosts' cgroups in parent that nobody holds
// and that are empty. One whose processes are still dying stays for next time.
func sweepCgroups(parent string) {
	left, _ := filepath.Glob(filepath.Join(parent, cgroupPrefix+"*")) // the pattern is well formed
	for _, path := range left {
		dir, err := lockCgroup(path)
		if err != nil {
			continue // alive, or just removed by someone else
		}
		_ = removeCgroups(path)
		_ = dir.Close()
	}
}

// remove removes the cgroup of a host whose processes have been killed, and
// waits up to two seconds until the kernel has let the last of them go.
func (c *cgroup) remove() error {
	defer c.own.Close()
	defer c.dir.Close()
	deadline := time.Now().Add(2 * time.Second)
	for {
		err := removeCgroups(c.path)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		if err := waitCgroupEvent(c.path, time.Until(deadline)); err != nil {
			return err
		}
	}
}

// waitCgroupEvent waits until the cgroup may have become empty. A process that
// left just before the call causes no event, hence the short slices.
func waitCgroupEvent(path string, limit time.Duration) error {
	f, err := os.Open(filepath.Join(path, "cgroup.events"))
	if err != nil {
		return err
	}
	defer f.Close()
	slice := min(limit, 50*time.Millisecond)
	fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
	_, err = unix.Poll(fds, int(slice.Milliseconds())+1)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for %s: %w", f.Name(), err)
	}
	return nil
}

// removeCgroups removes a cgroup and those below it, innermost first. It never
// removes one that has processes: rmdir(2) refuses. os.RemoveAll would not do: a
// cgroup's files cannot be removed, and need not be.
func removeCgroups(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeCgroups(filepath.Join(path, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}
