package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
)

// Grow has the kernel make a filesystem as large as the device it is on, which has size
// bytes. m is the mount, which can be written to. It is for those that grow only while
// they are mounted: XFS and btrfs. Their own programs do the same, but look for the
// mount in a table that has no detached ones.
func Grow(ctx context.Context, m *os.File, fs string, size int64) error {
	// m is an O_PATH descriptor, and ioctls need another.
	fd, err := unix.Openat(int(m.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch fs {
	case "xfs":
		return growXFS(ctx, fd, size)
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
	BlockSize, _, GroupBlocks, Groups, _, _, _, InodePercent uint32
	Blocks                                                   uint64
	_                                                        [72]byte
}

// xfsGrow is struct xfs_growfs_data.
type xfsGrow struct {
	Blocks       uint64 // of all
	InodePercent uint32 // how much of them inodes may take
	_            uint32
}

// An XFS grows by groups as large as its first ones. Each costs a moment and some blocks,
// and a filesystem that was made small has small ones. The kernel hears no signal while it
// makes them, so it makes some at a time.
const (
	groupsAtOnce = 64
	maxGroups    = 4096
)

func growXFS(ctx context.Context, fd int, size int64) error {
	var is xfsGeom
	if err := call(fd, xfsGeometry, unsafe.Pointer(&is)); err != nil {
		return err
	}
	if is.GroupBlocks == 0 || is.BlockSize == 0 {
		return errors.New("the kernel does not say how large its groups are")
	}
	all := uint64(size / int64(is.BlockSize))
	if groups := all / uint64(is.GroupBlocks); groups > maxGroups {
		return fault.New(fault.Image, fmt.Sprintf("make it no larger than %d GiB, or use a base whose XFS was made for more",
			maxGroups*int64(is.GroupBlocks)*int64(is.BlockSize)>>30),
			"the XFS was made so small that it would be of %d allocation groups", groups)
	}
	for has := is.Blocks; has < all; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		has = min(all, has+groupsAtOnce*uint64(is.GroupBlocks))
		want := xfsGrow{Blocks: has, InodePercent: is.InodePercent}
		if err := call(fd, xfsGrowData, unsafe.Pointer(&want)); err != nil {
			return err
		}
	}
	return nil
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
