package ostree

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// MakeWork makes the directories of an overlay over a deployment, of which dir is the
// directory in the volume. fresh removes those that are there: of a base they can only be
// a stranger's.
func MakeWork(root *os.File, dir string, fresh bool) error {
	err := makeWork(root, dir, fresh)
	if err != nil {
		return fmt.Errorf("make /%s: %w", Work, err)
	}
	return nil
}

func makeWork(root *os.File, dir string, fresh bool) error {
	if fresh {
		if err := RemoveWork(root); err != nil {
			return err
		}
	}
	upper, err := openat(root, Upper, unix.O_RDONLY|unix.O_DIRECTORY)
	if !errors.Is(err, os.ErrNotExist) {
		if err == nil {
			upper.Close()
		}
		return err
	}
	for _, name := range []string{Work, Upper, Workdir} {
		parent, err := openat(root, path.Dir(name), unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = unix.Mkdirat(int(parent.Fd()), path.Base(name), 0o700)
		parent.Close()
		if err != nil && err != unix.EEXIST {
			return err
		}
	}
	// The root directory that steps see is the upper one.
	source, err := openat(root, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer source.Close()
	if upper, err = openat(root, Upper, unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
		return err
	}
	defer upper.Close()
	attrs, err := attributes(handle(source))
	if err != nil {
		return err
	}
	return likeness(source, upper, attrs)
}

// RemoveWork removes what [MakeWork] made, and all that is in it.
func RemoveWork(root *os.File) error {
	parent, err := openat(root, path.Dir(Work), unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	return remove(parent, path.Base(Work))
}

// Changed says whether steps have left anything in the upper directory.
func (s *Sysroot) Changed() (usr, etc bool, err error) {
	upper, err := openat(s.Root, Upper, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, os.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	defer upper.Close()
	names, err := upper.Readdirnames(-1)
	for _, n := range names {
		if n == "etc" {
			etc = true
		} else if !isMounted(n) {
			usr = true
		}
	}
	return usr, etc, err
}
