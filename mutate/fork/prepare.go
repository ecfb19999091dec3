// Package fork is what is done to a fork from outside, before a guest works on
// it and after: the partition table as systemd-nspawn needs it, and the
// identity of a finished image, its GUIDs and all that refers to them.
//
// systemd-nspawn and firmware go by tables. Before steps run, volumes get the
// types of the Discoverable Partitions Specification, by what is in them. The
// image keeps those, because they are true. Attribute bits are changed only to
// make systemd-nspawn mount the right volumes, and every one of them is put back.
package fork

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/gpt"
)

// Version is part of every key; bump it when the edits below come to
// leave something else in the table.
const Version = 2

// blockingAttrs are the attribute bits that keep systemd-nspawn from mounting a
// partition, from mounting it writable, or from leaving its size alone.
const blockingAttrs = gpt.AttrNoAuto | gpt.AttrReadOnly | gpt.AttrGrowFS

// tableEdit is what imgmut does to a partition table while it works, and what
// of that the finished image keeps.
//
// The type GUIDs of the Discoverable Partitions Specification stay: they are
// true, and by them the image runs under systemd-nspawn, machined and
// gpt-auto. The attribute bits are put back, every one of them.
type tableEdit struct {
	work   gpt.Edit // base to working fork
	finish gpt.Edit // working fork to image, beside the identity
}

// editFor decides the edit from what is in the base.
func editFor(l *disk.Layout, t *gpt.Table) (tableEdit, error) {
	e := tableEdit{
		work:   gpt.Edit{NoSync: true, Types: map[int]uuid.UUID{}, Set: map[int]uint64{}, Clear: map[int]uint64{}},
		finish: gpt.Edit{NoSync: true, Set: map[int]uint64{}, Clear: map[int]uint64{}},
	}
	for _, p := range t.Partitions {
		v, _ := l.Slot(p.Slot)
		want, wanted, err := typeFor(v.Role, l.Arch)
		if err != nil {
			return e, err
		}
		switch {
		case v.Role == disk.ESP:
			// Hidden from nspawn, which would mount it where the image does not,
			// or die of it where the kernel has no vfat.
			e.set(p, gpt.AttrNoBlockIO)
		case wanted:
			if p.Type != want {
				e.work.Types[p.Slot] = want
			}
			e.clear(p, blockingAttrs)
		default:
			// Not one of the system's own volumes, whatever its type says: a
			// second root or home must not be taken for the first.
			e.set(p, gpt.AttrNoAuto)
		}
	}
	return e, nil
}

// set sets bits of a partition for the work, and clears those again that were
// not set before.
func (e *tableEdit) set(p gpt.Partition, bits uint64) {
	if missing := bits &^ p.Attributes; missing != 0 {
		e.work.Set[p.Slot] |= missing
		e.finish.Clear[p.Slot] |= missing
	}
}

// clear is the reverse of set.
func (e *tableEdit) clear(p gpt.Partition, bits uint64) {
	if present := bits & p.Attributes; present != 0 {
		e.work.Clear[p.Slot] |= present
		e.finish.Set[p.Slot] |= present
	}
}

// typeFor is the type GUID by which systemd-nspawn finds a volume of a role.
func typeFor(r disk.Role, arch string) (t uuid.UUID, ok bool, err error) {
	switch r {
	case disk.Root:
		t, err = gpt.RootType(arch)
	case disk.Usr:
		t, err = gpt.UsrType(arch)
	case disk.Boot:
		t = gpt.TypeXBOOTLDR
	case disk.Home:
		t = gpt.TypeHome
	case disk.Srv:
		t = gpt.TypeSrv
	case disk.Var:
		t = gpt.TypeVar
	default:
		return t, false, nil
	}
	return t, err == nil, err
}

// Prepare gives a working fork of a base the partition table that
// systemd-nspawn needs.
func Prepare(file string, l *disk.Layout) error {
	if l.Table == disk.Bare {
		return nil // one filesystem is root to nspawn as it is
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if l.Table == disk.MBR {
		return prepareMBR(f, l)
	}
	t, err := gpt.Read(f)
	if err != nil {
		return err
	}
	e, err := editFor(l, t)
	if err != nil {
		return fmt.Errorf("prepare the partition table: %w", err)
	}
	return gpt.Apply(f, e.work)
}

// prepareMBR marks the two volumes that systemd-nspawn knows in a DOS table.
func prepareMBR(f *os.File, l *disk.Layout) error {
	root, _ := l.Find(disk.Root)
	if err := gpt.SetActive(f, root.Slot); err != nil {
		return err
	}
	if err := gpt.SetType(f, root.Slot, 0x83); err != nil {
		return err
	}
	if boot, ok := l.Find(disk.Boot); ok {
		return gpt.SetType(f, boot.Slot, gpt.TypeMBRBoot)
	}
	return nil
}

// Mount is a volume and the place where systemd-nspawn mounts it.
type Mount struct {
	Volume disk.Volume
	Place  string
}

// Mounts are what systemd-nspawn mounts of a prepared image, / first. It is all
// that steps see.
func Mounts(l *disk.Layout) []Mount {
	var mounts []Mount
	for _, v := range l.Volumes {
		_, ok, _ := typeFor(v.Role, l.Arch)
		if l.Table != disk.GPT { // of a DOS table, the primary partitions
			ok = v.Slot <= 4 && (v.Role == disk.Root || v.Role == disk.Boot)
		}
		m := Mount{v, "/" + strings.Trim(v.Mountpoint, "/")}
		switch {
		case ok && v.Role == disk.Root:
			mounts = slices.Insert(mounts, 0, m)
		case ok:
			mounts = append(mounts, m)
		}
	}
	return mounts
}

// Mountpoints are the places of [Mounts].
func Mountpoints(l *disk.Layout) []string {
	var places []string
	for _, m := range Mounts(l) {
		places = append(places, m.Place)
	}
	return places
}

// sealed are the types of partitions whose presence says that another must not
// change: hashes of it, and their signatures.
var sealed = []uuid.UUID{
	gpt.TypeRootVerityX86_64, gpt.TypeRootVerityARM64, gpt.TypeUsrVerityX86_64, gpt.TypeUsrVerityARM64,
	gpt.TypeRootVeritySigX86_64, gpt.TypeRootVeritySigARM64, gpt.TypeUsrVeritySigX86_64, gpt.TypeUsrVeritySigARM64,
}

// CheckSupported refuses an image that can be changed, but whose result would
// not start, or would not show what a recipe puts into it.
func CheckSupported(l *disk.Layout) error {
	ids := map[string]int{}
	for _, v := range l.Volumes {
		if kind, err := uuid.Parse(v.Type); err == nil && slices.Contains(sealed, kind) || v.FS == "DM_verity_hash" {
			return fault.New(fault.Image, "use the image from before it was sealed, and seal the result",
				"%s holds hashes of another (dm-verity): an image that is sealed so does not start once it is changed", v)
		}
		id := strings.ToLower(v.PartUUID)
		if other, ok := ids[id]; ok && id != "" {
			return fault.New(fault.Image,
				fmt.Sprintf("give one another: sgdisk --partition-guid=%d:R on a copy of the image", v.Slot),
				"partitions %d and %d both have the unique GUID %s, so what names it is ambiguous", other, v.Slot, id)
		}
		ids[id] = v.Slot
	}
	if root, _ := l.Find(disk.Root); len(Mounts(l)) == 0 || Mounts(l)[0].Volume.Slot != root.Slot {
		return fault.New(fault.Image, "use an image with root in a primary partition",
			"root is in %s, a logical one, where systemd-nspawn does not look for it", root)
	}
	for _, m := range l.Mounts {
		if !visibleToSteps(l, m) {
			return fault.New(fault.Image,
				"use an image that has "+m.Mountpoint+" in its root, or mark that noauto in its /etc/fstab",
				"the image mounts something on %s, and systemd-nspawn does not (in a table of kind %s): "+
					"what a step puts there would be hidden when the image starts", m.Mountpoint, l.Table)
		}
	}
	return nil
}

// firmware is where the volumes of firmware and boot loaders are mounted, of
// which steps see nothing.
var firmware = []string{"/efi", "/boot/efi", "/boot/firmware"}

// visibleToSteps says whether steps see what the image mounts at a place.
func visibleToSteps(l *disk.Layout, m disk.Mounted) bool {
	v, ok := l.Slot(m.Slot)
	if ok && v.FS == "vfat" && slices.Contains(firmware, m.Mountpoint) {
		return true
	}
	return m.Slot != 0 && slices.ContainsFunc(Mounts(l), func(n Mount) bool { // 0 is a bind mount
		return n.Volume.Slot == m.Slot && n.Place == m.Mountpoint && n.Place != "/"
	})
}
