package mount

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/thread"
)

// Disk is an image that is attached as a whole, with its partitions.
type Disk struct {
	loop       *Device
	partitions []Partition
}

// Partition is a part of a disk. Start and Size are in bytes.
type Partition struct {
	Slot        int // its number in the table; 0 is the whole disk
	Start, Size int64
}

// DiskOptions say how an image is attached.
type DiskOptions struct {
	SectorSize int // bytes; 0 is 512
	ReadOnly   bool
	Partitions []Partition
}

// AttachDisk attaches the image f. The partitions are those that the caller found:
// not every kernel reads every table. Close the disk when nothing of it is to be
// mounted any more; mounts keep it.
func AttachDisk(f *os.File, o DiskOptions) (*Disk, error) {
	loop, err := Loop(f, LoopOptions{ReadOnly: o.ReadOnly, SectorSize: o.SectorSize, whole: true})
	if err != nil {
		return nil, err
	}
	d := &Disk{loop: loop}
	for _, p := range o.Partitions {
		if p.Slot == 0 {
			continue
		}
		if err := d.add(p); err != nil {
			return nil, errors.Join(fmt.Errorf("attach partition %d of %s: %w", p.Slot, f.Name(), err), d.Close())
		}
		d.partitions = append(d.partitions, p)
	}
	return d, nil
}

// add tells the kernel of a partition (BLKPG of linux/blkpg.h).
func (d *Disk) add(p Partition) error {
	part := unix.BlkpgPartition{Start: p.Start, Length: p.Size, Pno: int32(p.Slot)}
	arg := unix.BlkpgIoctlArg{
		Op: unix.BLKPG_ADD_PARTITION, Datalen: int32(unsafe.Sizeof(part)), Data: (*byte)(unsafe.Pointer(&part)),
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.loop.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg)))
	switch errno {
	case 0:
		return nil
	case unix.EBUSY: // the kernel has read the table itself, or has another partition there
		return d.same(p)
	}
	return errno
}

// same is an error if the kernel knows the partition as another range. Kernels number
// what lies in an extended partition, or in a BSD label, each in their own way.
func (d *Disk) same(p Partition) error {
	for file, want := range map[string]int64{"start": p.Start, "size": p.Size} {
		sectors, err := d.attribute(p.Slot, file)
		if err != nil {
			return err
		}
		if n, err := strconv.ParseInt(sectors, 10, 64); err != nil || n*512 != want { // sysfs counts in 512 bytes
			return fmt.Errorf("the kernel reads the partition table otherwise: %s is %s sectors, not %d", file, sectors, want/512)
		}
	}
	return nil
}

// Close lets go of the disk. It is detached when the last of its mounts ends.
func (d *Disk) Close() error { return d.loop.Close() }

// Name is what a partition is called where the disk is the only one of a virtual
// machine.
func (p Partition) Name() string {
	if p.Slot == 0 {
		return diskName
	}
	return diskName + strconv.Itoa(p.Slot)
}

const diskName = "vda"

// Mount makes detached mounts of partitions. The kernel, and so every program that
// asks it, knows them by the names that they have in a virtual machine: what a
// program writes down of them is then true where the image starts, and btrfs keeps
// for ever the first name that it sees.
//
// A mount that failed is an error in errs at its place, and nil in mounts.
func (d *Disk) Mount(requests ...Request) (mounts []*os.File, errs []error) {
	mounts, errs = make([]*os.File, len(requests)), make([]error, len(requests))
	thread.Own(func() {
		err := d.enterNames()
		for n, r := range requests {
			if errs[n] = err; err == nil {
				r.Device = "/dev/" + Partition{Slot: r.Slot}.Name()
				mounts[n], errs[n] = Detached(r)
			}
		}
	})
	return mounts, errs
}

// enterNames gives the calling thread a /dev that has the disk under its names,
// and nothing else.
func (d *Disk) enterNames() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := separate(); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/dev", "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755"); err != nil {
		return fmt.Errorf("mount names of the disk: %w", err)
	}
	for _, p := range append([]Partition{{}}, d.partitions...) {
		number, err := d.number(p.Slot)
		if err != nil {
			return err
		}
		if err := unix.Mknod("/dev/"+p.Name(), unix.S_IFBLK|0o600, int(number)); err != nil {
			return fmt.Errorf("make a node for %s: %w", p.Name(), err)
		}
	}
	return nil
}

// number is the device number of a partition, which sysfs tells (dev, as
// MAJOR:MINOR).
func (d *Disk) number(slot int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.loop.Fd()), &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", d.loop.Name(), err)
	}
	if slot == 0 {
		return st.Rdev, nil
	}
	text, err := d.attribute(slot, "dev")
	if err != nil {
		return 0, err
	}
	major, minor, _ := strings.Cut(text, ":")
	m, err1 := strconv.ParseUint(major, 10, 32)
	n, err2 := strconv.ParseUint(minor, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return 0, fmt.Errorf("read the number of partition %d of %s: %w", slot, d.loop.Name(), err)
	}
	return unix.Mkdev(uint32(m), uint32(n)), nil
}

// Number is the device number of a partition; slot 0 is the whole disk.
func (d *Disk) Number(slot int) (major, minor uint32, err error) {
	number, err := d.number(slot)
	return unix.Major(number), unix.Minor(number), err
}

// KernelName is what the kernel of the machine calls a partition, as loop3p1.
func (d *Disk) KernelName(slot int) string {
	if slot == 0 {
		return fmt.Sprintf("loop%d", d.loop.number)
	}
	return fmt.Sprintf("loop%dp%d", d.loop.number, slot)
}

// Reread has the kernel forget what it keeps of the disk, of which the file has changed.
// No partition may be in use.
func (d *Disk) Reread() error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.loop.Fd(), unix.BLKFLSBUF, 0); errno != 0 {
		return fmt.Errorf("read %s anew: %w", d.loop.Name(), errno)
	}
	return nil
}

// Sync makes what was written to the disk be in the file, as far as others see that.
func (d *Disk) Sync() error { return d.loop.Sync() }

// Detach ends the disk, also if whoever could write to it had it stay.
func (d *Disk) Detach() error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.loop.Fd(), unix.LOOP_CLR_FD, 0)
	err := d.loop.Close()
	if errno != 0 && errno != unix.ENXIO { // it has none any more
		return errors.Join(fmt.Errorf("detach %s: %w", d.loop.Name(), errno), err)
	}
	return err
}

// attribute is what sysfs tells of a partition.
func (d *Disk) attribute(slot int, name string) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.loop.Fd()), &st); err != nil {
		return "", fmt.Errorf("stat %s: %w", d.loop.Name(), err)
	}
	// By number, not by name: /dev may have been made by somebody else.
	text, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/loop%dp%d/%s",
		unix.Major(st.Rdev), unix.Minor(st.Rdev), d.loop.number, slot, name))
	if err != nil {
		return "", fmt.Errorf("find partition %d of %s: %w", slot, d.loop.Name(), err)
	}
	return strings.TrimSpace(string(text)), nil
}
