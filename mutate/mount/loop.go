package mount

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
)

// Device is an attached loop device. Close it once it is mounted: the mount
// keeps it, and the kernel detaches it when the mount ends.
type Device struct {
	*os.File
	number int // N of /dev/loopN
}

// LoopOptions say how a file is attached.
type LoopOptions struct {
	Offset, Size int64 // bytes of the file to show; Size 0 is all that follows
	ReadOnly     bool
	SectorSize   int  // bytes; 0 is 512
	whole        bool // a disk that will have partitions: see [AttachDisk]
}

// ErrNoLoop says that the machine has no loop devices: no /dev/loop-control.
var ErrNoLoop = fault.New(fault.Host,
	"modprobe loop, or give the container /dev/loop-control and the loop devices (imgmut doctor)",
	"this machine has no loop devices")

// Loop shows f as a block device.
func Loop(f *os.File, o LoopOptions) (*Device, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("attach %s: %w", f.Name(), ErrNoLoop)
	}
	if err != nil {
		return nil, fmt.Errorf("attach %s to a loop device: %w", f.Name(), err)
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(f.Fd()), Size: uint32(cmp.Or(o.SectorSize, 512)), Info: unix.LoopInfo64{
		Offset: uint64(o.Offset), Sizelimit: uint64(o.Size), Flags: unix.LO_FLAGS_AUTOCLEAR,
	}}
	mode := os.O_RDWR
	if o.ReadOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
		mode = os.O_RDONLY
	}
	if o.whole {
		config.Info.Flags |= unix.LO_FLAGS_PARTSCAN // without it there can be no partitions
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], f.Name())
	// Between asking for a free number and taking it another process may come
	// first (EBUSY), and one that has just become free may still be claimed by
	// the mount that ends, while the kernel goes on to offer it. 64 is what
	// systemd tries as well (shared/loop-util.c); it takes a second.
	for i := range 64 {
		time.Sleep(time.Duration(min(i, 20)) * time.Millisecond)
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("attach %s: find a free loop device: %w", f.Name(), err)
		}
		dev, err := openNode(n, mode)
		if err != nil {
			return nil, fmt.Errorf("attach %s: %w", f.Name(), err)
		}
		if o.whole {
			// udev leaves a locked disk alone. It would else have the kernel read the
			// table anew, which drops the partitions where that knows no such table, and
			// put the UUIDs of a fork into the machine's /dev/disk.
			err = unix.Flock(int(dev.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		}
		if err == nil {
			err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		}
		if err == nil {
			return &Device{dev, n}, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("attach %s to %s: %w", f.Name(), dev.Name(), err)
		}
	}
	return nil, fmt.Errorf("attach %s: %w: every free loop device was taken by somebody else", f.Name(), unix.EBUSY)
}

// openNode opens /dev/loopN, which udev or devtmpfs may make a moment after
// the kernel gave the number out.
func openNode(n, mode int) (*os.File, error) {
	path := fmt.Sprintf("/dev/loop%d", n)
	for deadline := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		dev, err := os.OpenFile(path, mode, 0)
		if err == nil || !errors.Is(err, os.ErrNotExist) || time.Now().After(deadline) {
			return dev, err
		}
	}
}

// FindLoop gives the path of the loop device that f is attached to as a whole, or
// "" if there is none. The device may go at any time: see [OpenLoop].
func FindLoop(f *os.File) (string, error) {
	dev, err := OpenLoop(f)
	if dev == nil {
		return "", err
	}
	return dev.Name(), dev.Close()
}

// OpenLoop opens the loop device that f is attached to as a whole, nil if there is
// none. It stays attached until Close. It goes by device and inode, so it finds a file
// that was attached by another name, or from another mount namespace.
func OpenLoop(f *os.File) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	for _, b := range backing {
		path := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(b)))
		dev, err := os.Open(path)
		if err != nil {
			continue // detached since
		}
		info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
		if err == nil && info.Device == st.Dev && info.Inode == st.Ino && info.Offset == 0 && info.Sizelimit == 0 {
			return dev, nil
		}
		dev.Close()
	}
	return nil, nil
}

// WaitReleased returns when no loop device names path any more.
func WaitReleased(ctx context.Context, path string) error {
	path, err := resolve(path)
	if err != nil {
		return err
	}
	for {
		held, err := holders(path)
		if err != nil {
			return err
		}
		if len(held) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to let go of %s: %w", strings.Join(held, ", "), path, context.Cause(ctx))
		case <-time.After(2 * time.Millisecond): // sysfs sends no event for it
		}
	}
}

// resolve spells path as the kernel does: absolute and without symbolic links.
// The file itself may be gone already.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path)), nil
	}
	return path, nil
}

func holders(path string) ([]string, error) {
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var held []string
	for _, b := range backing {
		name, err := os.ReadFile(b)
		if err != nil {
			continue // detached since
		}
		if n := strings.TrimSuffix(strings.TrimSpace(string(name)), " (deleted)"); n == path {
			held = append(held, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(b))))
		}
	}
	return held, nil
}
