package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/gpt"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/reflink"
)

// A step that works on how the image starts needs the image's disk: grub-probe reads it,
// grub-install writes the code to it that firmware starts. It gets a clone of it. So
// nothing can be read or written below a filesystem that is mounted, and what may change
// of the disk is decided here: its boot code, and nothing else.

// Lent is what such steps of one guest get: the clone as a device, a /dev with it, and
// copies of the FAT volumes that the kernel cannot mount.
type Lent struct {
	image  *Image
	users  mount.Users
	clone  *os.File
	before *os.File // what the clone was when the step began
	disk   *mount.Disk
	dev    *os.File
	fats   []*lentFAT
	system *Tree    // the guest's files
	seeds  []string // random seeds that were not there when the step began
}

// region is a part of the disk that boot loaders write to, in bytes.
type region struct {
	what         string
	offset, size int64
}

// Lend makes a clone of an image that is mounted for a guest, in a file that is new. It
// ends with Close, which has to come before that of the image.
func (i *Image) Lend(clone string, users mount.Users) (_ *Lent, err error) {
	l := &Lent{image: i, users: users}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("lend the disk: %w", err), l.Close())
		}
	}()
	for name, file := range map[string]**os.File{clone: &l.clone, clone + ".before": &l.before} {
		if *file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return nil, err
		}
	}
	if err := reflink.Clone(l.clone, i.File); err != nil {
		return nil, err
	}
	i.mu.Lock()
	own := i.disk
	i.mu.Unlock()
	if l.disk, err = mount.AttachDisk(l.clone, i.Layout.diskOptions(ReadWrite)); err != nil {
		return nil, err
	}
	links, err := i.Layout.devLinks(own, l.disk)
	if err != nil {
		return nil, err
	}
	if l.dev, err = l.disk.NewLent(users.Shift, links); err != nil {
		return nil, err
	}
	for _, m := range i.Sealed() {
		f, err := l.newFAT(m)
		if err != nil {
			return nil, err
		}
		l.fats = append(l.fats, f)
	}
	return l, nil
}

// Close ends it. No guest may have it any more.
func (l *Lent) Close() error {
	var errs []error
	if l.disk != nil {
		errs = append(errs, l.disk.Detach())
	}
	for _, f := range l.fats {
		errs = append(errs, f.copy.Close())
	}
	if l.dev != nil {
		errs = append(errs, l.dev.Close())
	}
	for _, f := range []*os.File{l.clone, l.before} {
		if f != nil {
			errs = append(errs, f.Close(), os.Remove(f.Name()))
		}
	}
	return errors.Join(errs...)
}

// Mounts are what the guest gets.
func (l *Lent) Mounts() []mount.Lent {
	all := []mount.Lent{{Mount: l.dev}}
	for _, f := range l.fats {
		all = append(all, mount.Lent{Name: f.name(), Mount: f.copy})
	}
	return all
}

// Devices are the nodes of block devices that the guest may open, by number:
// /dev/block/MAJOR:MINOR.
func (l *Lent) Devices() ([]string, error) {
	var all []string
	for _, slot := range l.image.Layout.nodes() {
		major, minor, err := l.disk.Number(slot)
		if err != nil {
			return nil, err
		}
		all = append(all, fmt.Sprintf("/dev/block/%d:%d", major, minor))
	}
	return all, nil
}

// Begin gets ready for a step, for which the disk is what it is now: nothing is left of
// what others wrote to the clone. Before, the guest has to have written out what it holds.
// system are the guest's files.
func (l *Lent) Begin(system *Tree) error {
	if err := reflink.Clone(l.clone, l.image.File); err != nil {
		return fmt.Errorf("lend the disk: %w", err)
	}
	if err := reflink.Clone(l.before, l.clone); err != nil {
		return fmt.Errorf("lend the disk: %w", err)
	}
	if err := l.disk.Reread(); err != nil {
		return err
	}
	l.system = system
	l.seeds = l.missingSeeds()
	return nil
}

// mendLent is what can be done where a step wants more of the disk than there is for it.
const mendLent = "of the disk itself a step changes the code that firmware starts, and nothing else: disk: in the recipe " +
	"makes it larger, identity: gives UUIDs and labels, and other changes of partitions and filesystems belong into the base"

// Keep takes over what a step has written to where boot loaders are. If it has written
// anywhere else on the disk, that cannot be kept, and is an error that says where.
func (l *Lent) Keep(ctx context.Context) error {
	if err := l.dropSeeds(); err != nil {
		return err
	}
	if err := l.disk.Sync(); err != nil {
		return fmt.Errorf("read what the step wrote to the disk: %w", err)
	}
	return l.keep(ctx)
}

func (l *Lent) keep(ctx context.Context) error {
	regions := l.image.Layout.bootRegions()
	for part, err := range content.Apart(ctx, l.before, l.clone) {
		if err == nil {
			err = l.keepPart(part, regions)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keepPart is keep for a part of the disk.
func (l *Lent) keepPart(part reflink.Range, regions []region) error {
	was, is := make([]byte, part.Length), make([]byte, part.Length)
	_, err1 := l.before.ReadAt(was, part.Offset)
	_, err2 := l.clone.ReadAt(is, part.Offset)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("read what the step wrote to the disk: %w", err)
	}
	if part.Offset == 0 && looksLikeGPT(is) && !looksLikeGPT(was) {
		return l.notKept(bootCode) // a DOS table's gap is no place for a GPT
	}
	for _, r := range regions {
		from, to := max(r.offset-part.Offset, 0), min(r.offset+r.size-part.Offset, part.Length)
		if from >= to || bytes.Equal(was[from:to], is[from:to]) {
			continue
		}
		if _, err := l.image.File.WriteAt(is[from:to], part.Offset+from); err != nil {
			return fmt.Errorf("keep what the step wrote to %s: %w", r.what, err)
		}
		copy(was[from:to], is[from:to])
	}
	for n := range is {
		if was[n] != is[n] {
			return l.notKept(part.Offset + int64(n))
		}
	}
	return nil
}

// notKept is the error that a step has written to a place of the disk.
func (l *Lent) notKept(at int64) error {
	return fault.New(fault.Step, mendLent, "it has written to %s (/dev/%s, at byte %d), which would not be in the image",
		l.image.Layout.what(at), mount.Partition{}.Name(), at)
}

// what says what a byte of the disk belongs to.
func (l *Layout) what(at int64) string {
	for _, v := range l.Volumes {
		if !slices.Contains(extended, v.Type) && at >= v.Offset && at < v.Offset+v.Size {
			if v.FS == "" || v.Slot == 0 {
				return v.String()
			}
			return fmt.Sprintf("%s (%s)", v, v.FS)
		}
	}
	return "the partition table, or what is between partitions"
}

// looksLikeGPT says whether a disk has a GPT, by its first bytes and for one size of
// sectors or another: an image may not become one of another table by this way.
func looksLikeGPT(disk []byte) bool {
	for _, sector := range []int{512, 4096} {
		if len(disk) >= sector+8 && string(disk[sector:sector+8]) == "EFI PART" {
			return true
		}
	}
	return false
}

const (
	// bootCode is how much of the first sector is code: what follows is the disk's
	// signature and the partition table.
	bootCode = 440
	// maxBootRegion bounds what is looked at of one region, in bytes. GRUB's image has
	// less than a megabyte.
	maxBootRegion = 16 << 20
)

// bootRegions are the parts of the disk that boot loaders write to, which is outside of
// filesystems. An image without a table has none: its first bytes are a filesystem's.
func (l *Layout) bootRegions() []region {
	if l.Table == Bare {
		return nil
	}
	regions := []region{{what: "the boot sector", size: bootCode}}
	first := int64(maxBootRegion)
	for _, v := range l.Volumes {
		first = min(first, v.Offset)
		if l.Table == GPT && strings.EqualFold(v.Type, gpt.TypeBIOSBoot.String()) && v.FS == "" {
			regions = append(regions, region{"the BIOS boot partition", v.Offset, min(v.Size, maxBootRegion)})
		}
	}
	if l.Table == MBR && first > 512 {
		regions = append(regions, region{"the gap before the first partition", 512, first - 512})
	}
	return regions
}

// Stage has the copies of FAT volumes be what the volumes are, and gives for each the
// place where the system mounts it. One that cannot be read is told to note, once, and is
// none of them: the step may do without.
func (l *Lent) Stage(ctx context.Context, note func(string)) (places map[string]string, err error) {
	places = map[string]string{}
	for _, f := range l.fats {
		if f.unreadable {
			continue
		}
		err := f.stage(ctx)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case hostFault(err) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.ENOMEM):
			return nil, fmt.Errorf("copy %s for the step: %w", f.at, err)
		case err != nil:
			f.unreadable = true
			note(fmt.Sprintf("steps find nothing below %s: %v", f.at, err))
		default:
			places[f.name()] = f.at
		}
	}
	return places, nil
}

// Unstage writes to the volumes what has changed in their copies. scratch is a directory
// for files on their way.
func (l *Lent) Unstage(ctx context.Context, scratch string) error {
	for _, f := range l.fats {
		if f.unreadable {
			continue
		}
		if err := f.unstage(ctx, scratch); err != nil {
			return fmt.Errorf("write what the step left in %s: %w", f.at, err)
		}
	}
	return nil
}

// remove removes a file of a mounted tree.
func (t *Tree) remove(name string) error {
	m, ok := t.files.(mountedTree)
	if !ok {
		return &fs.PathError{Op: "remove", Path: name, Err: errors.ErrUnsupported}
	}
	dir, err := m.open(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Unlinkat(int(dir.Fd()), path.Base(name), 0); err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}
