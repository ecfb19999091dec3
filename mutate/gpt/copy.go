package gpt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"os"
	"unicode/utf16"

	"github.com/google/uuid"
)

var le = binary.LittleEndian

// Places in a header: UEFI 2.10, table 5.5.
const (
	offRevision   = 8
	offHeaderSize = 12
	offHeaderCRC  = 16
	offReserved   = 20
	offSelf       = 24 // LBA of this header
	offAlternate  = 32 // LBA of the other header
	offFirst      = 40
	offLast       = 48
	offDisk       = 56
	offArray      = 72 // LBA of the array
	offCount      = 80
	offEntrySize  = 84
	offArrayCRC   = 88
	minHeader     = 92
)

// Places in an entry: UEFI 2.10, table 5.6.
const (
	entType       = 0
	entGUID       = 16
	entFirst      = 32
	entLast       = 40
	entAttributes = 48
	entName       = 56
	minEntry      = 128
)

const (
	signature = "EFI PART"
	revision  = 0x00010000
	// maxArray is the largest array, in bytes, that Linux reads: its buffer
	// comes from kmalloc (block/partitions/efi.c, alloc_read_gpt_entries). The
	// usual array has 16 KiB.
	maxArray = 4 << 20
)

// fault is what is wrong with the content of one copy, as opposed to an error
// that kept us from reading it, and what mends it if the other copy is sound.
type fault struct{ what, mend string }

func (f fault) Error() string { return f.what }

func faultf(format string, args ...any) error { return fault{fmt.Sprintf(format, args...), mendEnd} }

var unsigned = fault{"its header is not there: no signature", mendEnd}

// disk is an image seen as sectors of one size.
type disk struct {
	f       *os.File
	sector  int64  // bytes
	sectors uint64 // whole ones in the file
}

// tableCopy is one copy of the table, as raw bytes.
type tableCopy struct {
	lba    uint64
	header []byte // the whole sector
	array  []byte
}

func (s *tableCopy) u32(off int) uint32 { return le.Uint32(s.header[off:]) }
func (s *tableCopy) u64(off int) uint64 { return le.Uint64(s.header[off:]) }

// header reads a header and checks all that it says of itself.
func (d disk) header(lba uint64) (*tableCopy, error) {
	s := &tableCopy{lba: lba, header: make([]byte, d.sector)}
	if err := d.readAt(s.header, lba); err != nil {
		return s, err
	}
	if string(s.header[:len(signature)]) != signature {
		return s, unsigned
	}
	if r := s.u32(offRevision); r != revision {
		return s, faultf("header revision is %#x, want %#x", r, revision)
	}
	if n := s.u32(offHeaderSize); n < minHeader || int64(n) > d.sector {
		return s, faultf("header size is %d bytes, want %d to %d", n, minHeader, d.sector)
	}
	if s.headerCRC() != s.u32(offHeaderCRC) {
		return s, faultf("header checksum does not match")
	}
	if self := s.u64(offSelf); self != lba {
		return s, fault{fmt.Sprintf("header at sector %d says it is at sector %d", lba, self), mendBoth}
	}
	return s, nil
}

// readArray reads the array of a sound header. The size is checked first, for
// it is what the header's author chose to make us allocate.
func (d disk) readArray(s *tableCopy) error {
	size, count := uint64(s.u32(offEntrySize)), uint64(s.u32(offCount))
	if size < minEntry || size&(size-1) != 0 { // 128 * 2^n
		return faultf("entry size is %d bytes, want 128 or a power of two above", size)
	}
	if count == 0 || count > maxArray/size {
		return faultf("entry count is %d, want 1 to %d", count, maxArray/size)
	}
	start, length := s.u64(offArray), d.span(size*count)
	if start >= d.sectors || length > d.sectors-start {
		return faultf("entries at sector %d reach beyond the end of the file at sector %d", start, d.sectors)
	}
	s.array = make([]byte, size*count)
	if err := d.readAt(s.array, start); err != nil {
		return err
	}
	if crc32.ChecksumIEEE(s.array) != s.u32(offArrayCRC) {
		return faultf("checksum of the entries does not match")
	}
	return nil
}

// span is how many sectors hold n bytes.
func (d disk) span(n uint64) uint64 {
	return (n + uint64(d.sector) - 1) / uint64(d.sector)
}

func (d disk) readAt(b []byte, lba uint64) error {
	_, err := d.f.ReadAt(b, int64(lba)*d.sector)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF // all addresses were checked: the file shrinks under us
	}
	return err
}

// headerCRC is what the CRC of the header should be.
func (s *tableCopy) headerCRC() uint32 {
	h := append([]byte(nil), s.header[:s.u32(offHeaderSize)]...)
	le.PutUint32(h[offHeaderCRC:], 0)
	return crc32.ChecksumIEEE(h)
}

// seal makes both CRCs true again.
func (s *tableCopy) seal() {
	le.PutUint32(s.header[offArrayCRC:], crc32.ChecksumIEEE(s.array))
	le.PutUint32(s.header[offHeaderCRC:], s.headerCRC())
}

// entry is the bytes of one slot.
type entry []byte

func (s *tableCopy) entry(slot int) entry {
	size := int(s.u32(offEntrySize))
	return entry(s.array[(slot-1)*size : slot*size])
}

// used gives the slots whose type is not zero, by ascending number.
func (s *tableCopy) used() iter.Seq2[int, entry] {
	return func(yield func(int, entry) bool) {
		for slot := 1; slot <= int(s.u32(offCount)); slot++ {
			if e := s.entry(slot); e.guid(entType) != uuid.Nil && !yield(slot, e) {
				return
			}
		}
	}
}

func (e entry) span() (first, last uint64) {
	return le.Uint64(e[entFirst:]), le.Uint64(e[entLast:])
}

func (e entry) guid(off int) uuid.UUID { return guid(e[off:]) }

func (e entry) name() string {
	var units []uint16
	for b := e[entName:minEntry]; len(b) > 0 && le.Uint16(b) != 0; b = b[2:] {
		units = append(units, le.Uint16(b))
	}
	return string(utf16.Decode(units))
}

// guid reads a GUID, whose first three fields are little-endian in a GPT
// (UEFI 2.10, appendix A).
func guid(b []byte) uuid.UUID { return swapped(uuid.UUID(b)) }

func putGUID(b []byte, g uuid.UUID) {
	g = swapped(g)
	copy(b, g[:])
}

func swapped(g uuid.UUID) uuid.UUID {
	g[0], g[1], g[2], g[3] = g[3], g[2], g[1], g[0]
	g[4], g[5] = g[5], g[4]
	g[6], g[7] = g[7], g[6]
	return g
}
