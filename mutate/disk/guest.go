package disk

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/mount"
)

// GuestOptions say how an image is mounted for a guest.
type GuestOptions struct {
	Users    *os.File // user namespace of its owners, nil for none
	ReadOnly bool
	// Unsure says that what is known of the mounts is of another image, of which this is
	// a descendant.
	Unsure bool
	// Overlay says that the system is a deployment of ostree in which all can be changed:
	// an overlay on it, of which the image has what was changed. Fresh begins it anew.
	Overlay, Fresh bool
}

// MountGuest mounts what the system mounts of the image, as it is known, for a guest to
// run in: the places in their order, / first. [Image.MountsChanged] then tells whether
// the files that are in it now say the same. The mounts are the image's, which is good
// for nothing but looks until Close, and has to stay open as long as the guest runs.
func (i *Image) MountGuest(o GuestOptions) ([]mount.Place, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.guest = &o
	i.roles = func() error { return nil }
	if !o.ReadOnly {
		i.access = ReadWrite
	}
	i.mountKnown()
	if o.Overlay {
		if err := i.overlay(o.Fresh); err != nil {
			return nil, err
		}
	}
	places, err := i.guestPlaces()
	if err == nil && !o.Unsure {
		return places, nil
	}
	if err := i.lookAgain(); err != nil {
		return nil, err
	}
	return i.guestPlaces()
}

// mountKnown mounts what the system mounted the last time, which is most often all. What
// of that fails is told when it is asked for.
func (i *Image) mountKnown() {
	var parts []part
	for _, m := range i.Layout.Mounts {
		if v, _ := i.Layout.Slot(m.Slot); i.mountable(m) && (i.guest != nil || v.FS != "vfat") {
			parts = append(parts, m.part())
		}
	}
	i.mount(parts...)
}

// lookAgain finds out what the system mounts by the files that the image has now.
func (i *Image) lookAgain() error {
	root := slices.IndexFunc(i.Layout.Mounts, at("/"))
	if root < 0 {
		return errors.New("mount the image: its root is not known")
	}
	i.ostree = slices.DeleteFunc(slices.Clone(i.Layout.Mounts), func(m Mounted) bool {
		return m.Sub == "" || m.Mountpoint == "/" || m.Mountpoint == "/boot"
	})
	if err := i.mount(i.Layout.Mounts[root].part())[0]; err != nil {
		return err
	}
	if i.guest != nil {
		i.watch = newWatch()
	}
	files, err := i.mountedFiles(i.Layout.Mounts[root].part())
	if err != nil {
		return err
	}
	k := sync.OnceValue(func() kernelLine { return parseKernelLine(files.commandLine(nil)) })
	system, err := i.root(i.Layout.Mounts[root], k)
	if err != nil {
		return err
	}
	mounts, err := i.findMounts(system, files)
	if err != nil {
		return err
	}
	i.Layout.Mounts = mounts
	i.Layout.giveRoles()
	return nil
}

// MountsChanged says whether the system would now mount other things than the guest
// has, because of what a step did. Layout has then what it would. It is an error of class
// [fault.Image] if it cannot be known any more which volume is meant.
func (i *Image) MountsChanged() (bool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.watch != nil && !i.watch.changed(i.fats) {
		return false, nil
	}
	had, were := i.Layout.Mounts, i.where
	if err := i.lookAgain(); err != nil {
		i.watch = nil
		return false, err
	}
	return !slices.EqualFunc(had, i.Layout.Mounts, sameMount) || moved(were, i.where), nil
}

// mountedFiles are the files of each volume that is mounted, and of those that are read
// without the kernel. Of several subvolumes root is the one.
func (i *Image) mountedFiles(root part) (volumeFiles, error) {
	files := volumeFiles{trees: map[int]*Tree{}}
	parts := slices.SortedFunc(maps.Keys(i.mounted), func(a, b part) int { return cmp.Compare(a.options, b.options) })
	for _, p := range append([]part{root}, parts...) {
		if files.trees[p.slot] != nil {
			continue
		}
		view, err := i.view(p)
		if err != nil {
			return files, err
		}
		files.trees[p.slot] = i.look(view, p.slot)
	}
	for _, v := range i.Layout.Volumes {
		if v.FS != "vfat" || files.trees[v.Slot] != nil {
			continue
		}
		t, err := i.fat(v)
		if err == nil { // of another, verify will tell
			files.trees[v.Slot] = t
		}
		if i.watch != nil {
			i.watch.fats[v.Slot] = t
		}
	}
	return files, nil
}

// guestPlaces are the places of a guest, with their mounts.
func (i *Image) guestPlaces() ([]mount.Place, error) {
	var mounts []Mounted
	var parts []part
	for _, m := range i.Layout.Mounts {
		if i.mountable(m) {
			mounts, parts = append(mounts, m), append(parts, m.part())
		}
	}
	for n, err := range i.mount(parts...) {
		if err != nil {
			return nil, fmt.Errorf("%s, which %s mounts: %w", mounts[n].Mountpoint, mounts[n].From, err)
		}
	}
	places, beside := besidePlace(mounts, i.mounted)
	for _, m := range i.Layout.Mounts {
		v, _ := i.Layout.Slot(m.Slot)
		p := mount.Place{At: m.Mountpoint, Filesystem: -1}
		switch first := slices.Index(parts, m.part()); {
		case i.guest.ReadOnly && i.Layout.coveredBy(m):
			// What is asked of a guest that cannot write is about the system that has started.
			p.Sealed = fmt.Sprintf("imgmut: when the image starts, %s is mounted here (%s).", m.Cover, m.From)
		case m.ByHand, m.Cover != "", i.Layout.covered(m.Mountpoint):
			continue
		case m.Bind != "":
			p.Bind, p.Recursive = m.Bind, m.Recursive
		case i.sealed(m):
			p.Sealed = sealedNote(m, v)
		case !i.mountable(m):
			return nil, fault.New(fault.Image, "", "%s mounts %s on %s, which holds %s: imgmut cannot mount that",
				m.From, v, m.Mountpoint, v.content())
		case i.overlaid != nil && m.Mountpoint == "/":
			p.Mount = i.overlaid.mount
		case i.overlaid != nil && m.From == fromDeployment && m.Mountpoint == "/etc":
			continue // that of the overlay
		default:
			p = placeOf(m, beside, mounts[first], i.mounted)
			p.ReadOnly = p.ReadOnly || i.overlaid != nil && m.Mountpoint == "/sysroot"
		}
		places = append(places, p)
	}
	for n, p := range places {
		if v, ok := i.Layout.Slot(p.Filesystem); !ok || !mount.Writable(v.FS) || i.guest.ReadOnly {
			places[n].Filesystem = -1
		}
	}
	return places, nil
}

// content says what is in a volume, in words.
func (v Volume) content() string {
	if what := unusable(v.FS); what != "" {
		return what
	}
	return "nothing that is known"
}

// covered says whether something that is not of the image is mounted over a place,
// or over what it lies in.
func (l *Layout) covered(place string) bool {
	_, ok := l.Cover(place)
	return ok
}

// coveredBy says whether a mount is one that hides what the image has, and is itself
// hidden by no other.
func (l *Layout) coveredBy(m Mounted) bool {
	cover, ok := l.Cover(m.Mountpoint)
	return ok && cover.Mountpoint == m.Mountpoint && m.Cover != ""
}

// Cover gives the mount that hides what the image has at a path from the system that
// has started, if there is one.
func (l *Layout) Cover(name string) (Mounted, bool) {
	for _, m := range l.Mounts {
		if _, hidden := Within(name, m.Mountpoint); hidden && m.hides() {
			return m, true
		}
	}
	return Mounted{}, false
}

// fresh are places that are empty at each start of any system, and of each step: what
// is written there is meant to go.
var fresh = []string{"/tmp", "/run", "/var/run", "/var/lock", "/dev", "/proc", "/sys"}

// Covers are the mounts that hide what the image has.
func (l *Layout) Covers() []Mounted {
	return slices.DeleteFunc(slices.Clone(l.Mounts), func(m Mounted) bool { return !m.hides() })
}

// hides says whether a mount is one that hides what the image has.
func (m Mounted) hides() bool {
	return m.Cover != "" && !m.ByHand && !isFresh(m.Mountpoint)
}

// CommandLine is the kernel's command line as the image's boot loader gives it. It is
// there when the mounts have been found.
func (i *Image) CommandLine() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cmdline != "" {
		return i.cmdline
	}
	if v, _ := i.Layout.Find(Root); v.UUID != "" {
		return "root=UUID=" + v.UUID + " ro"
	}
	return "ro"
}
