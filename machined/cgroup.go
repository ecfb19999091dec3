package machined

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupPrefix begins the name of every private host's cgroup.
const cgroupPrefix = "imgmut-"

// cgroup is the cgroup2 directory of one private host. Its owner holds a lock
// on it: that tells a live one from what a killed imgmut left behind, also
// between containers that share a hierarchy but not their process ids.
type cgroup struct {
	path string
	dir  *os.File // open and locked
}

// newCgroup makes a cgroup for a private host at the top of the cgroup2
// hierarchy or, where that is not writable, below this process' own cgroup.
// It first removes what killed predecessors left there.
func newCgroup() (*cgroup, error) {
	parents, err := cgroupParents()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, parent := range parents {
		sweepCgroups(parent)
		c, err := makeCgroup(parent)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("make a cgroup: %w", errors.Join(errs...))
}

// cgroupParents returns the places where a private host's cgroup may go, best
// first, or nothing where cgroup2 is not mounted.
//
// A mount of our own would be no substitute: mounted without options from the
// initial cgroup namespace, cgroup2 resets nsdelegate and its other flags for
// the whole machine (kernel/cgroup/cgroup.c:apply_cgroup_root_flags).
func cgroupParents() ([]string, error) {
	var mountpoint string
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			mountpoint = dir
			break
		}
	}
	if mountpoint == "" {
		return nil, errors.New("cgroup2 is not mounted on /sys/fs/cgroup or /sys/fs/cgroup/unified")
	}
	own, err := ownCgroup()
	if err != nil {
		return nil, err
	}
	parents := []string{mountpoint}
	if dir := filepath.Join(mountpoint, own); dir != mountpoint {
		parents = append(parents, dir)
	}
	return parents, nil
}

// ownCgroup returns this process' cgroup2 path as /proc/self/cgroup gives it.
func ownCgroup() (string, error) {
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if path, ok := strings.CutPrefix(lines.Text(), "0::"); ok {
			return path, nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", err
	}
	return "", errors.New("read /proc/self/cgroup: no cgroup2 line")
}

// makeCgroup makes and locks a cgroup. Another imgmut may sweep it away in the
// moment before it is locked; then it makes another one.
func makeCgroup(parent string) (*cgroup, error) {
	for range 8 {
		path := filepath.Join(parent, fmt.Sprintf("%s%d-%s", cgroupPrefix, os.Getpid(), rand.Text()[:8]))
		if err := os.Mkdir(path, 0o755); err != nil {
			return nil, err
		}
		dir, err := lockCgroup(path)
		if err == nil {
			if _, err = os.Stat(path); err == nil {
				return &cgroup{path, dir}, nil
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
// removes one that has processes: rmdir(2) refuses. A cgroup's files are no
// obstacle to it, so this is not the place for RemoveAll.
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
