package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/ostree"
)

// Image is an image that is open: what is in it, the locks that its filesystems
// need, and the trees of its files, each mounted once and only if somebody asks for
// it. Its methods may be called from several goroutines.
type Image struct {
	File *os.File
	// Layout has the volumes and their filesystems. What needs a look into them
	// (roles, the operating system, mounts) is there after FindRoles.
	Layout *Layout

	unlock func()
	roles  func() error
	adding sync.Mutex // of roles to Layout, once the volumes are mounted, which takes longer

	mu      sync.Mutex // of all below
	access  Access     // of all that is mounted
	disk    *mount.Disk
	mounted map[part]*os.File
	views   map[part]*os.File   // see view
	dirs    map[string]*os.File // of the root's volume, by path
	fats    map[int]*Tree       // by slot
	said    []etc.Mount         // what fstab and mount units say
	ostree  []Mounted           // what is mounted of a deployment, beside its root
	// deployments are those of the volume that is looked into for the root.
	deployments []ostree.Deployment
	overlaid    *overlaid // nil if the system is not seen through an overlay
	dirty       []int     // slots of volumes whose journal is still to be replayed
	system      *mount.Tree
	loaders     func() *boot.Loaders // what those of system say, nil if it was not read yet
	guest       *GuestOptions        // nil if it is read, and not mounted for a guest
	cmdline     string               // the kernel's, empty if no boot loader's file says
	watch       *watch               // of what the mounts of the guest were found by
	where       []spot               // in which those mounts are
}

// part is a volume, or what its mount options choose of it.
type part struct {
	slot    int
	options string // joined by commas
}

// Open looks into an image that is not known yet. note is told if another
// imgmut has to be waited for. It is an error of class [fault.Image] if the
// image is damaged. The caller keeps f open until Close.
func Open(ctx context.Context, f *os.File, note func(string)) (*Image, error) {
	l, err := List(ctx, f)
	if err != nil {
		return nil, err
	}
	return OpenKnown(ctx, f, l, note)
}

// OpenKnown opens an image of which the layout is known, roles and all: it is a
// fork of one that was looked into. Its mounts may have changed since: see
// [Image.FindRoles].
func OpenKnown(ctx context.Context, f *os.File, l *Layout, note func(string)) (*Image, error) {
	unlock, err := mount.Claim{Filesystems: l.Filesystems(), Fork: f.Name(), Note: note}.Lock(ctx)
	if err != nil {
		return nil, err
	}
	known := *l
	known.Volumes = slices.Clone(l.Volumes)
	i := &Image{
		File: f, Layout: &known, unlock: unlock, mounted: map[part]*os.File{}, views: map[part]*os.File{},
		dirs: map[string]*os.File{}, fats: map[int]*Tree{},
	}
	i.roles = onceRoles(i)
	return i, nil
}

func onceRoles(i *Image) func() error { return sync.OnceValue(i.findRoles) }

// OpenCurrent is [OpenKnown] for a layout that is what the files say now.
func OpenCurrent(ctx context.Context, f *os.File, l *Layout, note func(string)) (*Image, error) {
	i, err := OpenKnown(ctx, f, l, note)
	if err == nil {
		i.roles = func() error { return nil }
	}
	return i, err
}

// Filesystems are those of the image, as the kernel tells them apart.
func (l *Layout) Filesystems() []mount.Filesystem {
	var all []mount.Filesystem
	for _, v := range l.Volumes {
		if v.FS != "" {
			all = append(all, mount.Filesystem{Type: v.FS, UUID: v.UUID})
		}
	}
	return all
}

// Volumes are the image's, as they are known now: roles may be found meanwhile.
func (i *Image) Volumes() []Volume {
	i.adding.Lock()
	defer i.adding.Unlock()
	return slices.Clone(i.Layout.Volumes)
}

// Said is what fstab and the mount units of the image say, as they were when the roles
// were found: what the start of the system mounts of it, and needs.
func (i *Image) Said() ([]etc.Mount, error) {
	if err := i.FindRoles(); err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.said), nil
}

// FindRoles looks into the volumes for what each is for, and what the system mounts
// where, once. It is an error of class [fault.Image] if there is no root, or more
// than one.
func (i *Image) FindRoles() error { return i.roles() }

// Close unmounts what was mounted and gives the locks back.
func (i *Image) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	err := i.detach()
	i.unlock()
	return err
}

// detach lets go of all that is mounted, and of the disk.
func (i *Image) detach() error {
	var errs []error
	if i.system != nil {
		errs = append(errs, i.system.Close())
		i.system, i.loaders = nil, nil
	}
	for name, dir := range i.dirs {
		errs = append(errs, dir.Close())
		delete(i.dirs, name)
	}
	for _, mounts := range []map[part]*os.File{i.mounted, i.views} {
		for p, m := range mounts {
			errs = append(errs, m.Close())
			delete(mounts, p)
		}
	}
	if i.overlaid != nil {
		errs = append(errs, i.overlaid.mount.Close(), i.overlaid.view.Close())
		i.overlaid = nil
	}
	clear(i.fats)
	i.watch = nil
	if i.disk != nil {
		errs = append(errs, i.disk.Close())
		i.disk = nil
	}
	return errors.Join(errs...)
}

// attach attaches the disk, once.
func (i *Image) attach() (err error) {
	if i.disk == nil {
		i.disk, err = mount.AttachDisk(i.File, i.Layout.diskOptions(i.access))
	}
	return err
}

// extended are the types of the partition that holds the logical ones of a DOS table.
var extended = []string{"0x05", "0x0f", "0x85"}

func (l *Layout) diskOptions(access Access) mount.DiskOptions {
	o := mount.DiskOptions{SectorSize: l.SectorSize, ReadOnly: access == ReadOnly}
	for _, v := range l.Volumes {
		if slices.Contains(extended, v.Type) {
			continue // it is those in it, which it would overlap
		}
		o.Partitions = append(o.Partitions, mount.Partition{Slot: v.Slot, Start: v.Offset, Size: v.Size})
	}
	return o
}

// mount mounts parts of the image that are not mounted yet, all at once. The errors
// are in the order of parts.
func (i *Image) mount(parts ...part) []error {
	errs := make([]error, len(parts))
	var missing []int // of parts
	var requests []mount.Request
	for n, p := range parts {
		if i.mounted[p] == nil && !slices.Contains(parts[:n], p) {
			missing = append(missing, n)
			requests = append(requests, i.request(p))
		}
	}
	if len(missing) == 0 {
		return errs
	}
	if err := i.attach(); err != nil {
		for _, n := range missing {
			errs[n] = err
		}
		return errs
	}
	mounts, failed := i.disk.Mount(requests...)
	for n, r := range requests {
		p := parts[missing[n]]
		if i.access == ReadOnly && wantsReplay(r.FS, failed[n]) {
			r.Unreplayed = true
			again, errs := i.disk.Mount(r)
			if errs[0] == nil {
				i.dirty = append(i.dirty, p.slot)
				mounts[n], failed[n] = again[0], nil
			}
		}
		if failed[n] != nil {
			v, _ := i.Layout.Slot(p.slot)
			errs[missing[n]] = fmt.Errorf("mount %s (%s): %w", v, v.FS, failed[n])
			continue
		}
		i.mounted[p] = mounts[n]
	}
	return errs
}

// wantsReplay says whether a filesystem could not be mounted because it holds changes
// that are to be replayed first, on a device that cannot be written to.
func wantsReplay(fs string, err error) bool {
	return errors.Is(err, syscall.EROFS) || fs == "btrfs" && errors.Is(err, syscall.EIO)
}

// request says how to mount a part.
func (i *Image) request(p part) mount.Request {
	v, _ := i.Layout.Slot(p.slot)
	r := mount.Request{Slot: p.slot, FS: v.FS, ReadOnly: i.access == ReadOnly, Unreplayed: slices.Contains(i.dirty, p.slot)}
	if i.guest != nil {
		r.Programs, r.Users = true, i.guest.Users
	}
	if p.options != "" {
		r.Options = strings.Split(p.options, ",")
	}
	return r
}

// part is what a mount shows.
func (m Mounted) part() part { return part{m.Slot, strings.Join(m.Options, ",")} }

// OpenFAT gives the files of a FAT volume, for reading, and for changing if the
// image was opened for writing. It needs no mount.
func (i *Image) OpenFAT(v Volume) (*Tree, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fat(v)
}

func (i *Image) fat(v Volume) (*Tree, error) {
	if t, ok := i.fats[v.Slot]; ok {
		return t, nil
	}
	t, err := v.openFAT(i.File, i.access)
	if err == nil {
		i.fats[v.Slot] = t
	}
	return t, err
}
