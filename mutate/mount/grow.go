package mount

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Grow has the kernel make a filesystem as large as the device it is on, which has size
// bytes. m is the mount, which can be written to. It is for those that grow only while
// they are mounted: XFS and btrfs. Their own programs do the same, but look for the
// mount in a table that has no detached ones.
func Grow(m *os.File, fs string, size int64) error {
	// m is an O_PATH descriptor, and ioctls need another.
	fd, err := unix.Openat(int(m.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch fs {
	case "xfs":
		return growXFS(fd, size)
	case "btrfs":
		return growBtrfs(fd)
	}
	return fmt.Errorf("%s does not grow while it is mounted", fs)
}

// Calls of xfs/xfs_fs.h.
const (
	xfsGeometry = 0x80705864
	xfsGrowData = 0x4010586e
)

// xfsGeom is struct xfs_fsop_geom_v1.
type xfsGeom struct {
	BlockSize, _, _, _, _, _, _, InodePercent uint32
	_                                         [80]byte
}

// xfsGrow is struct xfs_growfs_data.
type xfsGrow struct {
	Blocks       uint64 // of all
	InodePercent uint32 // how much of them inodes may take
	_            uint32
}

func growXFS(fd int, size int64) error {
	var is xfsGeom
	if err := call(fd, xfsGeometry, unsafe.Pointer(&is)); err != nil {
		return err
	}
	want := xfsGrow{Blocks: uint64(size / int64(is.BlockSize)), InodePercent: is.InodePercent}
	return call(fd, xfsGrowData, unsafe.Pointer(&want))
}

// Calls of linux/btrfs.h.
const (
	btrfsInfo   = 0x8400941f
	btrfsResize = 0x50009403
)

// btrfsFS is struct btrfs_ioctl_fs_info_args.
type btrfsFS struct {
	LastDevice uint64 // of those that the filesystem is on: the only one here
	_          [1016]byte
}

// btrfsVolume is struct btrfs_ioctl_vol_args.
type btrfsVolume struct {
	_    int64
	Name [4088]byte // ends with a NUL
}

func growBtrfs(fd int) error {
	var is btrfsFS
	if err := call(fd, btrfsInfo, unsafe.Pointer(&is)); err != nil {
		return err
	}
	var want btrfsVolume
	copy(want.Name[:], fmt.Sprintf("%d:max", is.LastDevice))
	return call(fd, btrfsResize, unsafe.Pointer(&want))
}

// call is ioctl(2) on a mounted filesystem.
func call(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
