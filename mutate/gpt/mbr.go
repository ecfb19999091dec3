package gpt

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
)

// Places in sector 0 and in the entries of its table: UEFI 2.10, tables 5.1
// and 5.2.
const (
	mbrSector     = 512
	mbrSignature  = 440 // of the disk: NT calls it that, Linux makes PARTUUIDs of it
	mbrTable      = 446
	mbrMagic      = 510
	mbrSlots      = 4
	mbrEntrySize  = 16
	mbrActive     = 0 // 0x80 or 0
	mbrType       = 4
	mbrLastCHS    = 5
	mbrStart      = 8
	mbrCount      = 12
	mbrProtective = 0xee
)

// MBRTable is the DOS partition table of an image.
type MBRTable struct {
	Signature  uint32         // of the disk; 0 if it has none
	Partitions []MBRPartition // used slots only, by ascending slot
}

// MBRPartition is one partition of a DOS table.
type MBRPartition struct {
	Slot        int   // 1 to 4 for a primary one, from 5 for a logical one
	Type        byte  // 0x83 for Linux
	Active      bool  // what a boot loader in sector 0 would start
	Start, Size int64 // bytes, with sectors of 512
}

// PartUUID is the name that Linux gives the partition on the disk with that
// signature, as in root=PARTUUID=5ec0ffee-01.
func (p MBRPartition) PartUUID(signature uint32) string {
	return fmt.Sprintf("%08x-%02x", signature, p.Slot)
}

// mbrPlace is where the table has a partition, in bytes.
type mbrPlace struct {
	entry int64
	link  int64 // entry that leads to the sector with that of a logical partition; 0 for the first
}

// ReadMBR reads the DOS partition table of the image f, the four primary entries
// and the chain of logical ones, taking sectors as 512 bytes. Ask [Read] first:
// where there is a GPT, sector 0 only protects it.
//
// It is [ErrNoTable] if sector 0 is not a partition table (the boot sector of
// a filesystem ends in the same magic) or an empty one, and a [*DamageError]
// if a partition reaches beyond the file or into another.
func ReadMBR(f *os.File) (*MBRTable, error) {
	t, _, err := readMBR(f)
	return t, err
}

// readMBR is ReadMBR that also gives the place of each partition.
func readMBR(f *os.File) (*MBRTable, []mbrPlace, error) {
	b, err := readSector0(f)
	if err != nil {
		return nil, nil, fmt.Errorf("read MBR: %w", err)
	}
	if b == nil {
		return nil, nil, fmt.Errorf("read MBR: %w", ErrNoTable)
	}
	size, err := fileSize(f)
	if err != nil {
		return nil, nil, fmt.Errorf("read MBR: %w", err)
	}
	t := &MBRTable{Signature: le.Uint32(b[mbrSignature:])}
	var used []span
	var places []mbrPlace
	for slot := 1; slot <= mbrSlots; slot++ {
		e := mbrEntry(b, slot)
		if e[mbrActive]&^0x80 != 0 { // Linux takes this for no table: block/partitions/msdos.c
			return nil, nil, fmt.Errorf("read MBR: %w", ErrNoTable)
		}
		start, count := int64(le.Uint32(e[mbrStart:])), int64(le.Uint32(e[mbrCount:]))
		if e[mbrType] == 0 || count == 0 {
			continue
		}
		p := MBRPartition{slot, e[mbrType], e[mbrActive] == 0x80, start * mbrSector, count * mbrSector}
		t.Partitions = append(t.Partitions, p)
		places = append(places, mbrPlace{entry: entryAt(0, slot)})
		used = append(used, span{fmt.Sprintf("partition %d", slot), uint64(start), uint64(start + count - 1)})
	}
	if len(used) == 0 {
		return nil, nil, fmt.Errorf("read MBR: %w", ErrNoTable)
	}
	if err := t.check(used, size); err != nil {
		return t, nil, err
	}
	for _, p := range t.Partitions {
		if slices.Contains(mbrExtended, p.Type) {
			logical, err := t.readLogical(f, p) // there can be one
			return t, append(places, logical...), err
		}
	}
	return t, places, nil
}

// mbrExtended are the types of the primary partition that holds the logical
// ones (block/partitions/msdos.c, is_extended_partition).
var mbrExtended = []byte{0x05, 0x0f, 0x85}

// maxLogical is as many logical partitions as Linux reads at most.
const maxLogical = 256

// readLogical follows the chain of sectors that each hold one logical partition
// and point to the next. Each must lie behind the one before it and inside the
// extended partition, so the chain has an end.
func (t *MBRTable) readLogical(f *os.File, extended MBRPartition) (places []mbrPlace, err error) {
	end := extended.Start + extended.Size
	damage := func(what string) ([]mbrPlace, error) {
		return nil, &DamageError{"MBR", "in the chain of logical partitions: " + what, ""}
	}
	at, link, slot := extended.Start, int64(0), 5
	for range maxLogical {
		b, err := readBootSector(f, at)
		if err != nil {
			return nil, fmt.Errorf("read MBR: %w", err)
		}
		if b == nil { // an extended partition may be empty
			return places, nil
		}
		here, next := mbrEntry(b, 1), mbrEntry(b, 2)
		start, size := at+int64(le.Uint32(here[mbrStart:]))*mbrSector, int64(le.Uint32(here[mbrCount:]))*mbrSector
		if here[mbrType] != 0 && size > 0 {
			if start <= at || start+size > end {
				return damage(fmt.Sprintf("partition %d is outside the extended partition", slot))
			}
			t.Partitions = append(t.Partitions, MBRPartition{slot, here[mbrType], here[mbrActive] == 0x80, start, size})
			places = append(places, mbrPlace{entryAt(at, 1), link})
			slot++ // an empty one has no number
		}
		if !slices.Contains(mbrExtended, next[mbrType]) || le.Uint32(next[mbrCount:]) == 0 {
			return places, nil
		}
		following := extended.Start + int64(le.Uint32(next[mbrStart:]))*mbrSector
		if following < max(at+mbrSector, start+size) || following >= end {
			return damage(fmt.Sprintf("what follows partition %d does not lie behind it", slot-1))
		}
		at, link = following, entryAt(at, 2)
	}
	return damage("it is too long")
}

func (t *MBRTable) check(used []span, size int64) error {
	for _, p := range t.Partitions {
		if p.Start+p.Size > size && p.Type != mbrProtective {
			return &DamageError{"MBR",
				fmt.Sprintf("partition %d ends at byte %d, but the file is %d bytes long: the image is truncated",
					p.Slot, p.Start+p.Size, size), mendFetch}
		}
	}
	if what := overlap(append([]span{{"the MBR", 0, 0}}, used...)); what != "" {
		return &DamageError{"MBR", what, ""}
	}
	return nil
}

// SetSignature gives the disk of f a new signature of eight hexadecimal
// digits, and with it every partition a new PARTUUID. It must not be zero,
// which means none.
func SetSignature(f *os.File, hex string) error {
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil || len(hex) != 8 || n == 0 {
		return fmt.Errorf("set disk signature %q: want eight hexadecimal digits, not all zero", hex)
	}
	t, err := ReadMBR(f)
	if err != nil {
		return err
	}
	for _, p := range t.Partitions {
		if p.Type == mbrProtective {
			return errors.New("edit MBR: it protects a GPT")
		}
	}
	b, err := readSector0(f)
	if err != nil {
		return fmt.Errorf("read MBR: %w", err)
	}
	if le.Uint32(b[mbrSignature:]) == uint32(n) {
		return nil
	}
	le.PutUint32(b[mbrSignature:], uint32(n))
	// It is one write, and so happens or does not.
	if _, err := f.WriteAt(b, 0); err != nil {
		return fmt.Errorf("write MBR: %w", err)
	}
	return f.Sync()
}

// readSector0 gives the first 512 bytes, or nil if they do not end in the
// magic of a partition table or boot sector.
func readSector0(f *os.File) ([]byte, error) { return readBootSector(f, 0) }

func readBootSector(f *os.File, at int64) ([]byte, error) {
	b := make([]byte, mbrSector)
	_, err := f.ReadAt(b, at)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if b[mbrMagic] != 0x55 || b[mbrMagic+1] != 0xaa {
		return nil, nil
	}
	return b, nil
}

// entryAt is where an entry of the table in the sector at that byte is.
func entryAt(sector int64, slot int) int64 { return sector + mbrTable + int64(slot-1)*mbrEntrySize }

func mbrEntry(b []byte, slot int) []byte {
	return b[mbrTable+(slot-1)*mbrEntrySize:][:mbrEntrySize]
}
