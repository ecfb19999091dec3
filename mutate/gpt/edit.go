package gpt

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/google/uuid"
)

// Edit is a set of changes to a table. The keys of the maps are slots, which
// must be in use. The zero Edit changes nothing.
type Edit struct {
	Disk  *uuid.UUID        // new disk GUID; nil keeps it
	Types map[int]uuid.UUID // new type GUIDs
	GUIDs map[int]uuid.UUID // new unique GUIDs; swaps are fine, duplicates are not
	Set   map[int]uint64    // attribute bits to set
	Clear map[int]uint64    // attribute bits to clear; none may be in Set as well
	// NoSync leaves out the waits for stable storage. It is for a file that a
	// crash throws away.
	NoSync bool
}

// Apply makes the changes of e in both copies of the table of f, and no other
// change to any byte but the four checksums.
//
// If it refuses, because the table is not one that [Read] accepts or because e
// does not fit it, f is as it was. If writing itself breaks off, one copy of
// the table is whole, old or new; the caller should drop the file.
func Apply(f *os.File, e Edit) error {
	old, t, err := read(f)
	if err != nil {
		return err
	}
	if err := e.check(t); err != nil {
		return fmt.Errorf("edit partition table: %w", err)
	}
	edited := old.edited(e)
	if edited.equal(old) {
		return nil
	}
	for _, batch := range edited.batches() {
		if err := batch.write(f, e.NoSync); err != nil {
			return fmt.Errorf("write %s: %w", batch.name, err)
		}
	}
	again, _, err := read(f)
	if err != nil {
		return fmt.Errorf("verify what was written: %w", err)
	}
	if !again.equal(edited) {
		return fmt.Errorf("verify what was written: %s holds something else", f.Name())
	}
	return nil
}

// check finds what in e does not fit t.
func (e Edit) check(t *Table) error {
	guids := map[int]uuid.UUID{}
	for _, p := range t.Partitions {
		guids[p.Slot] = p.GUID
	}
	for _, slot := range e.slots() {
		if _, ok := guids[slot]; !ok {
			return fmt.Errorf("slot %d is not in use", slot)
		}
		if g, ok := e.Types[slot]; ok && g == uuid.Nil {
			return fmt.Errorf("partition %d: a type GUID of zero would remove it", slot)
		}
		if g, ok := e.GUIDs[slot]; ok && g == uuid.Nil {
			return fmt.Errorf("partition %d: unique GUID is zero", slot)
		}
		if both := e.Set[slot] & e.Clear[slot]; both != 0 {
			return fmt.Errorf("partition %d: attribute bits %#x are to be both set and cleared", slot, both)
		}
	}
	if e.Disk != nil && *e.Disk == uuid.Nil {
		return fmt.Errorf("disk GUID is zero")
	}
	maps.Copy(guids, e.GUIDs)
	for _, slot := range slices.Sorted(maps.Keys(e.GUIDs)) {
		for other, g := range guids {
			if other != slot && g == guids[slot] {
				return fmt.Errorf("partitions %d and %d would both be %s", min(slot, other), max(slot, other), g)
			}
		}
	}
	return nil
}

// slots lists every slot that e names, in order, so that its faults are always
// reported in the same order.
func (e Edit) slots() []int {
	all := slices.AppendSeq(slices.Collect(maps.Keys(e.Types)), maps.Keys(e.GUIDs))
	all = slices.AppendSeq(slices.AppendSeq(all, maps.Keys(e.Set)), maps.Keys(e.Clear))
	slices.Sort(all)
	return slices.Compact(all)
}

// edited is a copy of p after e.
func (p *pair) edited(e Edit) *pair {
	return &pair{p.disk, p.primary.edited(e), p.backup.edited(e)}
}

func (s *tableCopy) edited(e Edit) *tableCopy {
	s = &tableCopy{s.lba, bytes.Clone(s.header), bytes.Clone(s.array)}
	if e.Disk != nil {
		putGUID(s.header[offDisk:], *e.Disk)
	}
	for slot, g := range e.Types {
		putGUID(s.entry(slot)[entType:], g)
	}
	for slot, g := range e.GUIDs {
		putGUID(s.entry(slot)[entGUID:], g)
	}
	for _, slot := range e.slots() {
		bits := s.entry(slot)[entAttributes:]
		le.PutUint64(bits, le.Uint64(bits)&^e.Clear[slot]|e.Set[slot])
	}
	s.seal()
	return s
}

func (p *pair) equal(q *pair) bool {
	return p.sector == q.sector && p.primary.equal(q.primary) && p.backup.equal(q.backup)
}

func (s *tableCopy) equal(o *tableCopy) bool {
	return s.lba == o.lba && bytes.Equal(s.header, o.header) && bytes.Equal(s.array, o.array)
}

// batch is writes whose order among themselves a crash may shuffle; a barrier
// follows them.
type batch struct {
	name   string
	writes []write
}

type write struct {
	off  int64
	data []byte
}

// batches is the one place that decides the order on disk: the backup is on
// stable storage before the primary, the only other copy, is touched.
func (p *pair) batches() []batch {
	of := func(name string, s *tableCopy) batch {
		return batch{name, []write{
			{int64(s.u64(offArray)) * p.sector, s.array},
			{int64(s.lba) * p.sector, s.header},
		}}
	}
	return []batch{of("backup GPT", p.backup), of("primary GPT", p.primary)}
}

func (b batch) write(f *os.File, noSync bool) error {
	for _, w := range b.writes {
		if _, err := f.WriteAt(w.data, w.off); err != nil {
			return err
		}
	}
	if noSync {
		return nil
	}
	return f.Sync()
}
