package gpt

import (
	"fmt"
	"os"
	"slices"
)

// MaxMBR is how much of a disk a DOS table can use, in bytes: it numbers sectors by 32
// bits.
const MaxMBR = mbrSector << 32

// MBR gives the DOS table that [GrowMBR] would make. f stays as it is.
func (g Growth) MBR(f *os.File) (*MBRTable, error) {
	t, _, err := g.mbr(f)
	return t, err
}

// GrowMBR is [Grow] for a DOS table. A logical partition grows with the extended one
// that it is in. If it refuses, f is as it was.
func GrowMBR(f *os.File, g Growth) error {
	want, edits, err := g.mbr(f)
	if err != nil {
		return err
	}
	if err := f.Truncate(g.Size); err != nil {
		return err
	}
	for _, e := range edits {
		b, err := e.batch(f)
		if err == nil {
			err = b.write(f, g.NoSync)
		}
		if err != nil {
			return fmt.Errorf("write MBR: %w", err)
		}
	}
	is, err := ReadMBR(f)
	if err != nil {
		return fmt.Errorf("verify what was written: %w", err)
	}
	if !slices.Equal(is.Partitions, want.Partitions) {
		return fmt.Errorf("verify what was written: %s holds something else", f.Name())
	}
	return nil
}

// mbr gives the table as it will be, and the edits that make it so: from the outside
// in, each of one sector, so that the table is sound after each.
func (g Growth) mbr(f *os.File) (*MBRTable, []mbrEdit, error) {
	t, places, err := readMBR(f)
	if err != nil {
		return nil, nil, err
	}
	edits, err := g.stretch(f, t, places)
	if err != nil {
		return nil, nil, fmt.Errorf("grow partition table: %w", err)
	}
	return t, edits, nil
}

func (g Growth) stretch(f *os.File, t *MBRTable, places []mbrPlace) (edits []mbrEdit, err error) {
	if err := g.check(f); err != nil || g.Slot == 0 {
		return nil, err
	}
	if g.Size > MaxMBR {
		return nil, fmt.Errorf("a DOS table reaches up to %d bytes, and not to %d", int64(MaxMBR), g.Size)
	}
	n := slices.IndexFunc(t.Partitions, func(p MBRPartition) bool { return p.Slot == g.Slot })
	if n < 0 {
		return nil, fmt.Errorf("slot %d is not in use", g.Slot)
	}
	grows, end := &t.Partitions[n], g.Size/grain*grain
	for i := range t.Partitions {
		p := &t.Partitions[i]
		if p.Start > grows.Start {
			return nil, fmt.Errorf("partition %d lies behind partition %d", p.Slot, g.Slot)
		}
		if g.Slot > mbrSlots && slices.Contains(mbrExtended, p.Type) && p.Start+p.Size < end {
			p.Size = end - p.Start
			edits = append(edits, mbrEdit{places[i].entry, p.Start, end})
		}
	}
	if grows.Start+grows.Size >= end {
		return nil, nil
	}
	grows.Size = end - grows.Start
	if link := places[n].link; link != 0 { // from the table that the partition is in to its end
		edits = append(edits, mbrEdit{link, places[n].entry - entryAt(0, 1), end})
	}
	return append(edits, mbrEdit{places[n].entry, grows.Start, end}), nil
}

// mbrEdit has what an entry is about reach to another end, in bytes.
type mbrEdit struct{ entry, start, end int64 }

// batch is the write of its sector.
func (e mbrEdit) batch(f *os.File) (batch, error) {
	at := e.entry / mbrSector * mbrSector
	b, err := readBootSector(f, at)
	if err != nil {
		return batch{}, err
	}
	entry := b[e.entry-at:][:mbrEntrySize]
	le.PutUint32(entry[mbrCount:], uint32((e.end-e.start)/mbrSector))
	copy(entry[mbrLastCHS:], chs(e.end/mbrSector-1))
	return batch{"MBR", []write{{at, b}}}, nil
}

// chs is a sector by cylinder, head and sector, of a disk of 255 heads with 63 sectors
// each, as all tools have it. What is farther away is written as the farthest.
func chs(sector int64) []byte {
	const heads, sectors, cylinders = 255, 63, 1024
	c, h, s := sector/(heads*sectors), sector/sectors%heads, sector%sectors+1
	if c >= cylinders {
		c, h, s = cylinders-1, heads-1, sectors
	}
	return []byte{byte(h), byte(s | c>>8<<6), byte(c)}
}
