package ostree

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
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

// Changed says whether steps have left anything in the upper directory that is not so in
// the deployment, of which dir is the directory.
func (s *Sysroot) Changed(dir string) (usr, etc bool, err error) {
	upper, err := openat(s.Root, Upper, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, os.ErrNotExist) { // where a system has /sysroot writable, a step can
		return false, false, fault.New(fault.Step, "leave alone what is below /sysroot/ostree",
			"a step has removed /%s, where all was that the steps had changed", Upper)
	}
	if err != nil {
		return false, false, err
	}
	defer upper.Close()
	lower, err := openat(s.Root, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false, false, err
	}
	defer lower.Close()
	same, err := alike(upper, lower)
	if err != nil {
		return false, false, err
	}
	usr = !same
	names, err := upper.Readdirnames(-1)
	for _, n := range names {
		var differs bool
		switch {
		case err != nil:
		case n == "etc":
			etc, err = changed(upper, lower, n)
		case !usr && !isMounted(n):
			differs, err = changed(upper, lower, n)
			usr = usr || differs
		}
	}
	return usr, etc, err
}

// changed says whether what has a name in an upper directory makes a difference to the
// lower one. A directory need not: that in which a file was made and removed again is in
// both, and so are those that it is in.
func changed(upper, lower *os.File, name string) (bool, error) {
	is, err := openat(upper, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return true, nil // a file, or something in place of what is gone
	}
	if err != nil {
		return false, err
	}
	defer is.Close()
	was, err := openat(lower, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer was.Close()
	if alike, err := alike(is, was); err != nil || !alike {
		return true, err
	}
	names, err := is.Readdirnames(-1)
	if err != nil {
		return false, err
	}
	for _, n := range names {
		if differs, err := changed(is, was, n); err != nil || differs {
			return differs, err
		}
	}
	return false, nil
}

// alike says whether a directory of an upper one has the owner, mode and attributes of the
// lower one, and shows what is in that.
func alike(upper, lower *os.File) (bool, error) {
	var is, was unix.Stat_t
	if err := errors.Join(unix.Fstat(int(upper.Fd()), &is), unix.Fstat(int(lower.Fd()), &was)); err != nil {
		return false, err
	}
	attrs, err := attributes(handle(upper))
	if err != nil {
		return false, err
	}
	had, err := attributes(handle(lower))
	if err != nil {
		return false, err
	}
	_, opaque := attrs[overlayAttr+"opaque"]
	maps.DeleteFunc(attrs, func(key, _ string) bool { return strings.HasPrefix(key, overlayAttr) })
	if _, ok := attrs["security.selinux"]; !ok {
		delete(had, "security.selinux") // as [likeness] has it
	}
	return !opaque && is.Mode == was.Mode && is.Uid == was.Uid && is.Gid == was.Gid && maps.Equal(attrs, had), nil
}
