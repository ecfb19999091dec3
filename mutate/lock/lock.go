// Package lock keeps processes out of each other's way, by flock(2) on files.
// A lock ends with the process that holds it, however that ends, so there are
// no stale ones. The content of a lock file means nothing and it is never
// renamed; it may stay for ever, or go by [Remove].
package lock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Mode says who else may hold a lock.
type Mode int

// The modes of a lock.
const (
	Exclusive Mode = unix.LOCK_EX // nobody
	Shared    Mode = unix.LOCK_SH // others that take it shared
)

// machineDir is where the locks are that all stores of a machine share: there
// is one kernel to mount filesystems, and one machined.
const machineDir = "/run/imgmut"

// Take takes the lock that is the file path, made if need be, and waits while
// others hold it. busy, if not nil, is called if there is a wait. unlock gives
// the lock back.
func Take(ctx context.Context, path string, m Mode, busy func()) (unlock func(), err error) {
	// A flock(2) that waits cannot be given up when the context ends, so this
	// polls. The first tries are fast: most locks are held for milliseconds.
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		if ctx.Err() != nil { // also where nobody holds it: work in many small pieces ends here
			return nil, fmt.Errorf("take lock %s: %w", path, context.Cause(ctx))
		}
		unlock, ok, err := Try(path, m)
		if ok || err != nil {
			return unlock, err
		}
		if busy != nil {
			busy()
			busy = nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for lock %s: %w", path, context.Cause(ctx))
		case <-time.After(wait):
		}
	}
}

// Try is [Take] without waiting: ok is false if another holds the lock.
func Try(path string, m Mode) (unlock func(), ok bool, err error) {
	for {
		f, err := try(path, m)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		// Between opening and locking the file, its last holder may have removed it,
		// and the next one to come would lock another of that name.
		if named(f, path) {
			return func() { f.Close() }, true, nil
		}
		f.Close()
	}
}

// try opens and locks the file that the path names now.
func try(path string, m Mode) (*os.File, error) {
	// Neither a link nor a pipe is a lock; without O_NONBLOCK a pipe waits for its other end.
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New("no regular file")
	}
	if err == nil {
		err = unix.Flock(int(f.Fd()), int(m)|unix.LOCK_NB)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// named says whether a file is still the one that path names.
func named(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(opened, there)
}

// Remove removes a lock file, unless somebody holds it: that lock would be
// another's as well, on a new file.
func Remove(path string) error {
	unlock, ok, err := Try(path, Exclusive)
	if err != nil || !ok {
		return err
	}
	defer unlock()
	return os.Remove(path)
}

// Machine takes an exclusive lock of the whole machine; see [Take].
func Machine(ctx context.Context, name string, busy func()) (unlock func(), err error) {
	path, err := MachineFile(name + ".lock")
	if err != nil {
		return nil, err
	}
	return Take(ctx, path, Exclusive, busy)
}

// MachineFile is the path of a file beside the locks of the machine. Its
// directory is there, and is root's alone to write.
func MachineFile(name string) (string, error) {
	if err := rootsDir(machineDir); err != nil {
		return "", err
	}
	return filepath.Join(machineDir, name), nil
}

// rootsDir makes a directory in one that is root's. If it is there already, it
// has to be root's, and nobody else's to write to: others could hold the locks
// for ever, and would say which mounts are to be ended.
func rootsDir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if uid := fi.Sys().(*syscall.Stat_t).Uid; !fi.IsDir() || uid != 0 || fi.Mode()&0o022 != 0 {
		return &UntrustedError{Dir: dir, Owner: int(uid), Mode: fi.Mode()}
	}
	return nil
}

// UntrustedError says that the directory for locks of the machine is not
// root's alone.
type UntrustedError struct {
	Dir   string
	Owner int // user id
	Mode  fs.FileMode
}

func (e *UntrustedError) Error() string {
	return fmt.Sprintf("%s cannot be trusted with locks: it is not a directory of root's alone (owner: user %d, mode: %v)",
		e.Dir, e.Owner, e.Mode)
}

// Fault is whose fault it is: the machine's.
func (e *UntrustedError) Fault() string { return "host" }

// Hint is the mend.
func (e *UntrustedError) Hint() string { return "remove it while no imgmut runs: imgmut makes it anew" }
