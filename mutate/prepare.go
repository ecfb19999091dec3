package mutate

import (
	"fmt"
	"os"
	"strings"

	"github.com/google/uuid"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/gpt"
)

// prepareVersion is part of every key; bump it when the edits below come to
// leave something else in the table.
const prepareVersion = 1

// hostile are the attribute bits that keep systemd-nspawn from mounting a
// partition, from mounting it writable, or from leaving its size alone.
const hostile = gpt.AttrNoAuto | gpt.AttrReadOnly | gpt.AttrGrowFS

// tableEdit is what imgmut does to a partition table while it works, and what
// of that the finished image keeps.
//
// The type GUIDs of the Discoverable Partitions Specification stay: they are
// true, and by them the image runs under systemd-nspawn, machined and
// gpt-auto. The attribute bits are a disguise for systemd-nspawn, and every one
// of them is put back.
type tableEdit struct {
	work   gpt.Edit // base to working fork
	finish gpt.Edit // working fork to image, beside the identity
}

// editFor decides the edit from what is in the base.
func editFor(l *disk.Layout, t *gpt.Table) (tableEdit, error) {
	e := tableEdit{
		work:   gpt.Edit{Loose: true, Types: map[int]uuid.UUID{}, Set: map[int]uint64{}, Clear: map[int]uint64{}},
		finish: gpt.Edit{Loose: true, Set: map[int]uint64{}, Clear: map[int]uint64{}},
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
			e.clear(p, hostile)
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

// prepare gives a working fork of a base the partition table that
// systemd-nspawn needs.
func prepare(file string, l *disk.Layout) error {
	if l.Table == disk.Bare {
		return nil // one filesystem is root to nspawn as it is
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if l.Table == disk.MBR {
		root, _ := l.Find(disk.Root)
		return gpt.SetActive(f, root.Slot)
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

// mountpoints are where systemd-nspawn mounts the volumes of a prepared image
// in the guest, / first.
func mountpoints(l *disk.Layout) []string {
	points := []string{"/"}
	for _, v := range l.Volumes {
		if _, ok, _ := typeFor(v.Role, l.Arch); ok && v.Role != disk.Root {
			points = append(points, "/"+strings.Trim(v.Mountpoint, "/"))
		}
	}
	return points
}
