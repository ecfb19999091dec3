package mount

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/thread"
)

// Overlay makes a detached mount in which a directory of a volume can be changed and is
// not: what changes is in another of it (overlayfs of the kernel's documentation). lower,
// upper and work are directories of the volume, a detached mount that is used up by it;
// owners are as that translates them (Linux 5.19). view shows the same, and nothing that
// is mounted in the other; nobody can write there.
func Overlay(volume *os.File, lower, upper, work string) (m, view *os.File, err error) {
	thread.Own(func() {
		if err = unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return
		}
		if err = separate(); err != nil {
			return
		}
		m, view, err = overlay(volume, lower, upper, work)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("mount an overlay on /%s: %w", lower, err)
	}
	return m, view, nil
}

func overlay(volume *os.File, lower, upper, work string) (m, view *os.File, err error) {
	// Not every kernel takes layers of a mount that has no place. This one goes with the
	// thread: the overlay keeps mounts of its own.
	const at = "/sys"
	if err := unix.MoveMount(int(volume.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, nil, fmt.Errorf("attach a volume: %w", err)
	}
	c, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return nil, nil, errors.New("this kernel has no overlay")
	}
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(c)
	options := [][2]string{{"source", "imgmut"}, {"redirect_dir", "off"}, {"index", "off"}, {"metacopy", "off"}, {"xino", "off"}}
	for _, layer := range [][2]string{{"lowerdir", lower}, {"upperdir", upper}, {"workdir", work}} {
		dir, err := openStrictly(volume, layer[1])
		if err != nil {
			return nil, nil, err
		}
		defer dir.Close()
		options = append(options, [2]string{layer[0], fmt.Sprintf("/proc/self/fd/%d", dir.Fd())})
	}
	for _, o := range options {
		if err := unix.FsconfigSetString(c, o[0], o[1]); err != nil {
			return nil, nil, fmt.Errorf("option %s: %w", o[0], err)
		}
	}
	if err := unix.FsconfigCreate(c); err != nil {
		return nil, nil, fmt.Errorf("%w%s", err, kernelLog(c))
	}
	fd, err := unix.Fsmount(c, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, nil, err
	}
	if m, err = cloneAttached(at, 0); err != nil {
		return nil, nil, err
	}
	if view, err = cloneAttached(at, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NOSUID); err != nil {
		return nil, nil, errors.Join(err, m.Close())
	}
	return m, view, nil
}

// cloneAttached makes a detached mount of one that has a place.
func cloneAttached(at string, attributes uint64) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, at, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if attributes != 0 {
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attributes}); err != nil {
			unix.Close(fd)
			return nil, err
		}
	}
	return os.NewFile(uintptr(fd), at), nil
}
