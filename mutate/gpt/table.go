package gpt

import (
	"errors"
	"fmt"
	"os"

	"github.com/google/uuid"
)

// Table is a checked partition table.
type Table struct {
	SectorSize  int         // bytes, 512 or 4096; the unit of every LBA
	Disk        uuid.UUID   // disk GUID
	Slots       int         // entries in the array, used or not
	FirstUsable uint64      // first LBA that a partition may use
	LastUsable  uint64      // last LBA that a partition may use
	Grown       bool        // the file goes on behind the backup: it was enlarged after the table was made
	Partitions  []Partition // used slots only, by ascending slot
}

// Partition is one used slot of a table.
type Partition struct {
	Slot        int       // 1-based; not the position in [Table.Partitions]
	Type, GUID  uuid.UUID // what it is for; which one it is
	Start, Size int64     // bytes
	Attributes  uint64    // bits, see [AttrNoAuto] and its like
	Name        string    // label; ends at the first NUL, unpaired surrogates read as U+FFFD
}

// ErrNoTable says that a file holds no partition table of the kind asked for,
// nor the remains of one.
var ErrNoTable = errors.New("no partition table")

// DamageError says that there is, or was, a partition table and that it is not
// sound. The file was not changed.
type DamageError struct {
	Where string // the faulty copy: "primary GPT", "backup GPT", "both GPT copies", "protective MBR", "MBR"
	What  string // the fault, one lower-case line
	Mend  string // what the user can do about it, as an imperative phrase; empty if nothing is known to help
}

// Error is one lower-case line that names the copy and the fault.
func (e *DamageError) Error() string { return e.Where + ": " + e.What }

// The mends. Each was tried on the damage it is given for; a test repeats it.
// They ask for a copy because a tool that regenerates a primary header does
// not know whether the array was where it will put it.
const (
	mendEnd = "run 'sgdisk -e' on a copy of the image, which writes the faulty part anew from the sound one"
	// sgdisk -e keeps two headers that it finds sound; sfdisk makes both from one.
	mendBoth = "save the output of 'sfdisk --dump' and give it to 'sfdisk' on a copy of the image, " +
		"which makes both copies equal"
	mendFetch = "copy or download the image again"
)

// advise gives a mend that is right for this image, or none. By itself each
// tool takes an image for one with sectors of 512 bytes, and would start a new
// table; and none keeps a header or entry of unusual size.
func (d disk) advise(mend string, sound *tableCopy) string {
	if sound.u32(offHeaderSize) != minHeader || sound.u32(offEntrySize) != minEntry {
		return ""
	}
	if d.sector != 512 {
		return mend + fmt.Sprintf(", attached with 'losetup --sector-size %d'", d.sector)
	}
	return mend
}

// Read reads and checks the partition table of the image f, in both copies.
//
// It is [ErrNoTable] if there is no sign of one, a [*DamageError] if there is
// one but not all of it is sound, and another error if f could not be read.
// The file offset of f is neither used nor moved.
func Read(f *os.File) (*Table, error) {
	_, t, err := read(f)
	return t, err
}

// read is Read that also gives the bytes the table was read from.
func read(f *os.File) (*pair, *Table, error) {
	p, err := load(f)
	if err != nil {
		return nil, nil, fmt.Errorf("read partition table: %w", err)
	}
	if err := p.check(); err != nil {
		return nil, nil, fmt.Errorf("read partition table: %w", err)
	}
	t := p.table()
	if err := secondOpinion(f, p.primary, t); err != nil {
		return nil, nil, fmt.Errorf("read partition table: %w", err)
	}
	return p, t, nil
}

// table is the model of a pair that has been checked.
func (p *pair) table() *Table {
	s := p.primary
	t := &Table{
		SectorSize:  int(p.sector),
		Disk:        guid(s.header[offDisk:]),
		Slots:       int(s.u32(offCount)),
		FirstUsable: s.u64(offFirst),
		LastUsable:  s.u64(offLast),
		Grown:       p.backup.lba != p.sectors-1,
	}
	for slot, e := range s.used() {
		first, last := e.span()
		t.Partitions = append(t.Partitions, Partition{
			Slot: slot, Type: e.guid(entType), GUID: e.guid(entGUID),
			Start: int64(first) * p.sector, Size: int64(last-first+1) * p.sector,
			Attributes: le.Uint64(e[entAttributes:]), Name: e.name(),
		})
	}
	return t
}
