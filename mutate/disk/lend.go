package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/etc"
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
	disk   *mount.Disk
	dev    *os.File
	fats   []*lentFAT
	before []region // as the step found them
	seeds  []string // random seeds that a step may make where the kernel has mounted an ESP
	system *Tree    // the guest's files
}

// region is a part of the disk that boot loaders write to.
type region struct {
	what         string
	offset, size int64
	bytes        []byte
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
	if l.clone, err = os.OpenFile(clone, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, err
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
	for _, f := range []*os.File{l.dev, l.clone} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if l.clone != nil {
		errs = append(errs, os.Remove(l.clone.Name()))
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
	if err := l.disk.Reread(); err != nil {
		return err
	}
	l.system, l.seeds = system, nil
	for _, m := range l.image.Layout.Mounts {
		seed := path.Join(m.Mountpoint, randomSeed)
		if v, _ := l.image.Layout.Slot(m.Slot); v.FS == "vfat" && l.image.mountable(m) && !etc.Exists(system, seed[1:]) {
			l.seeds = append(l.seeds, seed[1:])
		}
	}
	l.before = l.image.Layout.bootRegions()
	for n := range l.before {
		if err := l.before[n].read(l.clone); err != nil {
			return err
		}
	}
	return nil
}

// Keep takes over what a step has written to where boot loaders are. lost says that it
// has also changed what it may not, as the partition table: that is not taken over.
func (l *Lent) Keep() (lost bool, err error) {
	for _, seed := range l.seeds {
		if err := l.system.remove(seed); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	if err := l.disk.Sync(); err != nil {
		return false, fmt.Errorf("read what the step wrote to the disk: %w", err)
	}
	return l.keep()
}

func (l *Lent) keep() (lost bool, err error) {
	for _, was := range l.before {
		is := was
		if err := is.read(l.clone); err != nil {
			return false, err
		}
		switch {
		case bytes.Equal(is.bytes, was.bytes):
		case was.what == "" || was.what == gapName && looksLikeGPT(is.bytes) && !looksLikeGPT(was.bytes):
			lost = true
		default:
			if _, err := l.image.File.WriteAt(is.bytes, is.offset); err != nil {
				return false, fmt.Errorf("keep what the step wrote to %s: %w", is.what, err)
			}
		}
	}
	l.before = nil
	return lost, nil
}

func (r *region) read(f *os.File) error {
	r.bytes = make([]byte, r.size)
	if _, err := f.ReadAt(r.bytes, r.offset); err != nil {
		return fmt.Errorf("read the boot code of the disk: %w", err)
	}
	return nil
}

// looksLikeGPT says whether what stands behind the first sector begins a GPT, for one
// size of sectors or another: an image may not become one of another table by this way.
func looksLikeGPT(gap []byte) bool {
	for _, sector := range []int{512, 4096} {
		if at := sector - 512; len(gap) >= at+8 && string(gap[at:at+8]) == "EFI PART" {
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
	gapName       = "the gap before the first partition"
)

// bootRegions are the parts of the disk that boot loaders write to outside of
// filesystems, and those that nobody may write to but which are watched: they have no
// name. An image without a table has none: its first bytes are a filesystem's.
func (l *Layout) bootRegions() []region {
	if l.Table == Bare {
		return nil
	}
	sector := int64(max(l.SectorSize, 512))
	regions := []region{{what: "the boot sector", size: bootCode}, {offset: bootCode, size: 512 - bootCode}}
	first := int64(maxBootRegion)
	for _, v := range l.Volumes {
		first = min(first, v.Offset)
		if l.Table == GPT && strings.EqualFold(v.Type, gpt.TypeBIOSBoot.String()) {
			regions = append(regions, region{what: "the BIOS boot partition", offset: v.Offset, size: min(v.Size, maxBootRegion)})
		}
	}
	switch {
	case l.Table == MBR && first > 512:
		regions = append(regions, region{what: gapName, offset: 512, size: first - 512})
	case l.Table == GPT: // the table, of 128 entries at most times
		regions = append(regions, region{offset: sector, size: sector + 128*128})
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
