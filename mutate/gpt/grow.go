package gpt

import (
	"cmp"
	"fmt"
	"os"
)

// Growth is what becomes of a table whose disk is made larger, or was since the table
// was made: the backup is at the end again, all up to it can be used, and one partition
// gets the room that is behind it.
type Growth struct {
	Size   int64 // of the disk, in bytes; no less than the file has
	Slot   int   // of the partition, behind which no other may lie; 0 for none
	NoSync bool  // as in [Edit]
}

// grain is where a partition that grows ends: at a multiple of this, in bytes, as the
// tools for disks have it. It is a whole number of blocks of every filesystem.
const grain = 1 << 20

// Table gives the table that [Grow] would make. f stays as it is.
func (g Growth) Table(f *os.File) (*Table, error) {
	old, _, err := read(f)
	if err != nil {
		return nil, err
	}
	p, err := old.grown(g)
	if err != nil {
		return nil, fmt.Errorf("grow partition table: %w", err)
	}
	return p.table(), nil
}

// Grow makes the file f as large as g says, and its table fit.
//
// If it refuses, because the table is not one that [Read] accepts or because g does not
// fit it, f is as it was. If writing itself breaks off, one copy of the table is whole,
// old or new; the caller should drop the file.
func Grow(f *os.File, g Growth) error {
	old, _, err := read(f)
	if err != nil {
		return err
	}
	p, err := old.grown(g)
	if err != nil {
		return fmt.Errorf("grow partition table: %w", err)
	}
	batches, err := p.moving(old)
	if err != nil {
		return fmt.Errorf("grow partition table: %w", err)
	}
	if err := f.Truncate(g.Size); err != nil {
		return err
	}
	for _, batch := range batches {
		if err := batch.write(f, g.NoSync); err != nil {
			return fmt.Errorf("write %s: %w", batch.name, err)
		}
	}
	again, _, err := read(f)
	if err != nil {
		return fmt.Errorf("verify what was written: %w", err)
	}
	if !again.equal(p) {
		return fmt.Errorf("verify what was written: %s holds something else", f.Name())
	}
	return nil
}

// grown is a copy of p after g.
func (p *pair) grown(g Growth) (*pair, error) {
	if err := g.check(p.f); err != nil {
		return nil, err
	}
	q := &pair{disk{p.f, p.sector, uint64(g.Size / p.sector)}, p.primary.edited(Edit{}), p.backup.edited(Edit{})}
	q.backup.lba = q.sectors - 1
	array := q.backup.lba - q.span(uint64(len(q.backup.array)))
	le.PutUint64(q.primary.header[offAlternate:], q.backup.lba)
	le.PutUint64(q.backup.header[offSelf:], q.backup.lba)
	le.PutUint64(q.backup.header[offArray:], array)
	for _, s := range []*tableCopy{q.primary, q.backup} {
		le.PutUint64(s.header[offLast:], array-1)
		if err := s.stretch(g.Slot, array*uint64(q.sector)/grain*grain/uint64(q.sector)); err != nil {
			return nil, err
		}
		s.seal()
	}
	if what := cmp.Or(q.regions(), q.spans()); what != "" { // a file that is larger by less than the backup is, perhaps
		return nil, fmt.Errorf("on a disk of %d bytes, %s", g.Size, what)
	}
	return q, nil
}

// check refuses to make a file smaller.
func (g Growth) check(f *os.File) error {
	size, err := fileSize(f)
	if err == nil && g.Size < size {
		err = fmt.Errorf("the disk has %d bytes, and %d are less", size, g.Size)
	}
	return err
}

// stretch has a partition end right before the sector end, if it ends earlier. Slot 0
// is none.
func (s *tableCopy) stretch(slot int, end uint64) error {
	if slot == 0 {
		return nil
	}
	var grows entry
	for n, e := range s.used() {
		if n == slot {
			grows = e
		}
	}
	if grows == nil {
		return fmt.Errorf("slot %d is not in use", slot)
	}
	_, last := grows.span()
	for n, e := range s.used() {
		if first, _ := e.span(); first > last {
			return fmt.Errorf("partition %d lies behind partition %d", n, slot)
		}
	}
	if end > last+1 {
		le.PutUint64(grows[entLast:], end-1)
	}
	return nil
}

// moving gives the writes by which the table old becomes p. At first the new backup is
// written, where the old table has nothing, then the primary, which names it. What the
// old backup was, and the protective MBR, is of no use to any copy by then.
func (p *pair) moving(old *pair) ([]batch, error) {
	rest := batch{name: "what the old backup GPT leaves"}
	begin := p.backup.u64(offArray) // of what is new, and stays
	blank := func(first, sectors uint64) {
		if end := min(first+sectors, begin); first < end {
			rest.writes = append(rest.writes, write{int64(first) * p.sector, make([]byte, int64(end-first)*p.sector)})
		}
	}
	blank(old.backup.u64(offArray), p.span(uint64(len(old.backup.array))))
	blank(old.backup.lba, 1)
	sector0, err := p.protecting(old)
	if err != nil {
		return nil, err
	}
	rest.writes = append(rest.writes, write{0, sector0})
	return append(p.batches(), rest), nil
}

// protecting is sector 0 with a protective entry that covers the disk. Where that stands
// beside others, which boot loaders go by (a hybrid MBR), they are what follows: each is
// one of the partitions again.
func (p *pair) protecting(old *pair) ([]byte, error) {
	b, err := readSector0(p.f)
	if err != nil {
		return nil, err
	}
	used := 0
	for slot := 1; slot <= mbrSlots; slot++ {
		e := mbrEntry(b, slot)
		if e[mbrType] != 0 {
			used++
		}
		for n, now := range p.primary.used() {
			first, last := now.span()
			_, was := old.primary.entry(n).span()
			if e[mbrType] != mbrProtective && uint64(le.Uint32(e[mbrStart:])) == first && last != was {
				le.PutUint32(e[mbrCount:], uint32(min(last-first+1, 1<<32-1)))
			}
		}
	}
	for slot := 1; slot <= mbrSlots && used == 1; slot++ {
		if e := mbrEntry(b, slot); e[mbrType] == mbrProtective {
			le.PutUint32(e[mbrCount:], uint32(min(p.sectors-1, 1<<32-1)))
		}
	}
	return b, nil
}
