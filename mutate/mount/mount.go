// Package mount is the kernel's block and mount layer: files attached to loop
// devices, filesystems mounted where nobody sees them, and what stands in the
// way of mounting one twice.
//
// Everything here ends by itself when the process does. A loop device is
// attached with LO_FLAGS_AUTOCLEAR, so the kernel lets go of it with its last
// user; a mount is detached ([Detached]), so it has no place in any namespace
// and ends with its descriptor. The kernel reads no partition table: it is told of
// the partitions that were found ([AttachDisk]).
//
// Letting go is lazy, though. A file that some loop device still names may
// still be written to, so whoever clones it as finished or renames it waits
// with [WaitReleased] first.
//
// A foreign filesystem is a program that the kernel runs as root. Only those
// that imgmut can work on are ever given to it ([Supported]), and what their
// superblock asks the kernel to do about damage is overruled: an ext4 can ask
// for a panic of the machine.
package mount

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// drivers are the filesystems that imgmut has the kernel mount, with the kernel's
// driver of each: that of ext4 reads its predecessors too, whose own many kernels
// lack.
var drivers = map[string]string{
	"ext2": "ext4", "ext3": "ext4", "ext4": "ext4", "xfs": "xfs", "btrfs": "btrfs", "f2fs": "f2fs",
	"erofs": "erofs", "squashfs": "squashfs", "vfat": "vfat",
}

// Supported says whether imgmut has the kernel mount that filesystem, by the
// name that blkid(8) and the kernel have for it.
func Supported(fs string) bool { return drivers[fs] != "" }

// Writable says whether a filesystem that is supported can be changed in place.
func Writable(fs string) bool { return Supported(fs) && fs != "erofs" && fs != "squashfs" }

// Request says how to mount a block device.
type Request struct {
	Device string // path of its node
	Slot   int    // of the partition, in place of Device, for [Disk.Mount]
	FS     string
	// ReadOnly changes no file. The kernel replays a journal first, or a log tree,
	// and where the device is read-only as well that is EROFS.
	ReadOnly bool
	// Unreplayed shows what is on the device without the journal, and changes no byte
	// of it. It goes with ReadOnly.
	Unreplayed bool
	Options    []string // of the filesystem, "key=value" or "flag"
	// Programs lets the files be run, with the rights that their modes give. Without
	// it none of them is run or gives rights, whatever it is.
	Programs bool
	// Users, if not nil, is a user namespace through which owners are translated.
	Users *os.File
}

// Detached mounts a device where nobody sees it (fsmount(2), Linux 5.2) and
// gives the mount, an O_PATH descriptor of its root directory. Closing it ends
// the mount. In it no file is a device.
func Detached(r Request) (*os.File, error) {
	if !Supported(r.FS) {
		return nil, fmt.Errorf("%s is no filesystem that imgmut mounts", r.FS)
	}
	c, err := unix.Fsopen(drivers[r.FS], unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("this kernel has no %s", r.FS)
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(c)
	if err := unix.FsconfigSetString(c, "source", r.Device); err != nil {
		return nil, err
	}
	for _, option := range r.options() {
		if key, value, ok := strings.Cut(option, "="); ok {
			err = unix.FsconfigSetString(c, key, value)
		} else {
			err = unix.FsconfigSetFlag(c, key)
		}
		if err != nil {
			return nil, fmt.Errorf("option %s: %w", option, err)
		}
	}
	if err := unix.FsconfigCreate(c); err != nil {
		return nil, fmt.Errorf("%w%s", err, kernelLog(c))
	}
	fd, err := unix.Fsmount(c, unix.FSMOUNT_CLOEXEC, r.attributes())
	if err != nil {
		return nil, err
	}
	m := os.NewFile(uintptr(fd), r.Device)
	if r.Users != nil { // which has to be done before the mount has a place
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(r.Users.Fd())}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			m.Close()
			return nil, fmt.Errorf("translate owners: %w", err)
		}
	}
	return m, nil
}

// attributes are those of the mount, as fsmount(2) has them.
func (r Request) attributes() int {
	attributes := unix.MOUNT_ATTR_NODEV
	if !r.Programs {
		attributes |= unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOATIME
	}
	if r.ReadOnly {
		attributes |= unix.MOUNT_ATTR_RDONLY
	}
	return attributes
}

// options are those of the request and those that imgmut always wants.
func (r Request) options() []string {
	options := slices.Clone(r.Options)
	switch r.FS {
	case "ext2", "ext3", "ext4":
		options = append(options, "errors=remount-ro") // not what the superblock says
	case "xfs":
		options = append(options, "nouuid") // a fork of it, which has the same UUID, may be mounted
	}
	if r.ReadOnly || !Writable(r.FS) {
		options = append(options, "ro")
	}
	if r.Unreplayed {
		switch r.FS {
		case "ext3", "ext4", "xfs":
			options = append(options, "norecovery")
		case "btrfs":
			options = append(options, "rescue=nologreplay")
		}
	}
	return options
}

// kernelLog reads why the kernel refused, which it says on the context's
// descriptor, one message a read (fsopen(2)).
func kernelLog(c int) string {
	var said []string
	b := make([]byte, 1024)
	for {
		n, err := unix.Read(c, b)
		if err != nil || n <= 0 {
			break
		}
		said = append(said, strings.TrimSpace(strings.TrimPrefix(string(b[:n]), "e ")))
	}
	if len(said) == 0 {
		return ""
	}
	return ": " + strings.Join(said, "; ")
}

// Attach gives a detached mount a place: a directory that the caller has open,
// so that it is that one whatever its path has come to mean. It stays covered
// until somebody unmounts it.
func Attach(m, dir *os.File) error {
	err := unix.MoveMount(int(m.Fd()), "", int(dir.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return &os.PathError{Op: "mount on", Path: dir.Name(), Err: err}
	}
	return nil
}

// KernelHas tells whether this kernel has that filesystem, loading a module for
// it if it can. Asking is opening a context for it (fsopen(2)).
func KernelHas(fs string) bool {
	c, err := unix.Fsopen(fs, unix.FSOPEN_CLOEXEC)
	if err == nil {
		unix.Close(c)
		return true
	}
	// Without fsopen (no rights) the list of those loaded has to do.
	list, err := os.ReadFile("/proc/filesystems")
	return err == nil && slices.Contains(strings.Fields(string(list)), fs)
}
