package gpt

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"slices"

	"github.com/diskfs/go-diskfs/backend/file"
	diskfs "github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/google/uuid"
)

// check finds what is wrong between the copies of a pair and in the layout
// they describe. Each copy is sound in itself already.
func (p *pair) check() error {
	if protected, err := protective(p.f); err != nil {
		return err
	} else if !protected {
		return p.unprotected()
	}
	if alt := p.backup.u64(offAlternate); alt != 1 {
		return &DamageError{"backup GPT", fmt.Sprintf("header says that the primary is in sector %d", alt),
			p.advise(mendBoth, p.primary)}
	}
	if what := p.difference(); what != "" {
		return &DamageError{"backup GPT", "it differs from the primary in " + what, p.advise(mendBoth, p.primary)}
	}
	if what := cmp.Or(p.regions(), p.spans()); what != "" {
		return &DamageError{"both GPT copies", what, ""}
	}
	return nil
}

// unprotected tells a lost MBR from one that describes the disk in its own way.
func (p *pair) unprotected() error {
	err := &DamageError{"protective MBR", "sector 0 has no entry of type 0xee, so that systems do not look for the GPT",
		p.advise(mendEnd, p.primary)}
	if b, readErr := readSector0(p.f); readErr != nil || b != nil {
		// sgdisk would have to ask which of the two tables counts.
		err.Mend = ""
	}
	return err
}

// difference names the first thing in which the copies do not agree.
func (p *pair) difference() string {
	a, b := p.primary, p.backup
	for _, field := range []struct {
		name     string
		off, end int
	}{
		{"the usable range", offFirst, offDisk},
		{"the disk GUID", offDisk, offArray},
		{"the number or size of entries", offCount, offArrayCRC},
	} {
		if !bytes.Equal(a.header[field.off:field.end], b.header[field.off:field.end]) {
			return field.name
		}
	}
	for slot := 1; slot <= int(a.u32(offCount)); slot++ {
		if !bytes.Equal(a.entry(slot), b.entry(slot)) {
			return fmt.Sprintf("slot %d", slot)
		}
	}
	return ""
}

// span is a range of sectors, both ends included.
type span struct {
	name        string
	first, last uint64
}

// regions checks that what the table consists of, and what it leaves to
// partitions, are apart. It is what makes it safe to write either copy while
// the other is the only one that counts.
func (p *pair) regions() string {
	first, last := p.primary.u64(offFirst), p.primary.u64(offLast)
	if first > last || last >= p.sectors {
		return fmt.Sprintf("the usable range from sector %d to %d is not within the %d sectors of the file",
			first, last, p.sectors)
	}
	array := func(name string, s *tableCopy) span {
		start := s.u64(offArray)
		return span{name, start, start + p.span(uint64(len(s.array))) - 1}
	}
	return overlap([]span{
		{"the MBR", 0, 0},
		{"the primary header", 1, 1},
		array("the primary array", p.primary),
		{"the usable range", first, last},
		array("the backup array", p.backup),
		{"the backup header", p.backup.lba, p.backup.lba},
	})
}

// spans checks the place of every partition.
func (p *pair) spans() string {
	first, last := p.primary.u64(offFirst), p.primary.u64(offLast)
	var all []span
	for slot, e := range p.primary.used() {
		s := span{name: fmt.Sprintf("partition %d", slot)}
		s.first, s.last = e.span()
		if s.first > s.last {
			return fmt.Sprintf("%s ends at sector %d, before its start at sector %d", s.name, s.last, s.first)
		}
		if s.first < first || s.last > last {
			return fmt.Sprintf("%s from sector %d to %d is outside the usable range from %d to %d",
				s.name, s.first, s.last, first, last)
		}
		all = append(all, s)
	}
	return overlap(all)
}

// overlap names two spans that share a sector, if any do.
func overlap(spans []span) string {
	slices.SortStableFunc(spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	// In order of their starts, two that overlap have two neighbours that do.
	for i := 1; i < len(spans); i++ {
		if a, b := spans[i-1], spans[i]; b.first <= a.last {
			return fmt.Sprintf("%s and %s overlap at sector %d", a.name, b.name, b.first)
		}
	}
	return ""
}

// secondOpinion has go-diskfs read the primary as well and compares. It only
// ever sees tables that passed our checks, for it believes sizes unseen.
func secondOpinion(f *os.File, s *tableCopy, t *Table) error {
	if s.u32(offHeaderSize) != minHeader || s.u32(offEntrySize) != minEntry || s.u32(offReserved) != 0 {
		return nil // sound by the specification, but unknown to go-diskfs
	}
	other, err := diskfs.Read(file.New(f, true), t.SectorSize, t.SectorSize)
	if err != nil {
		return fmt.Errorf("compare with go-diskfs: %w", err)
	}
	if other.RecoveredFromBackup || parsed(other.GUID) != t.Disk || len(other.Partitions) != len(t.Partitions) {
		return fmt.Errorf("compare with go-diskfs: it sees disk %s with %d partitions, not %s with %d",
			other.GUID, len(other.Partitions), t.Disk, len(t.Partitions))
	}
	for i, p := range t.Partitions {
		o := other.Partitions[i]
		seen := Partition{o.Index, parsed(string(o.Type)), parsed(o.GUID), o.GetStart(), o.GetSize(), o.Attributes, o.Name}
		if seen != p {
			return fmt.Errorf("compare with go-diskfs: it sees partition %d differently", p.Slot)
		}
	}
	return nil
}

// parsed is a GUID as go-diskfs writes it, in capitals.
func parsed(text string) uuid.UUID {
	g, _ := uuid.Parse(text) // always well-formed; were it not, it would differ from ours
	return g
}
