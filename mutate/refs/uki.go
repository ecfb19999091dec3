package refs

import (
	"bufio"
	"bytes"
	"debug/pe"
	"encoding/binary"
	"io"
	"io/fs"

	"github.com/imgmut/imgmut/mutate/fault"
)

// ukiFiles are where unified kernel images and their add-ons lie on an EFI
// system partition or a /boot of its own (UAPI.1 Boot Loader Specification,
// type #2; systemd-stub(7)).
var ukiFiles = []string{
	"EFI/*/*.efi", "EFI/Linux/*.efi.extra.d/*.addon.efi", "loader/addons/*.addon.efi",
}

// uki is what a unified kernel image says to kernels: its sections .cmdline, of
// which one with several profiles has several (UAPI.5 Unified Kernel Image).
type uki struct {
	lines  []commandLine
	signed bool // for Secure Boot: no byte can change
}

type commandLine struct {
	text   string
	offset int64 // of the text in the file
}

// maxCommandLine is more than a kernel takes, in bytes, and maxProfiles more than
// anybody chooses from.
const (
	maxCommandLine = 64 << 10
	maxProfiles    = 32
)

// readUKI reads the command lines of a PE file; it has none if it is no such
// file. It reads the header itself, because debug/pe also reads symbols and
// relocations, which firmware ignores: a fault in them must not hide what boots.
func readUKI(t fs.FS, name string) (u uki) {
	f, err := t.Open(name)
	if err != nil {
		return u
	}
	defer f.Close()
	r, ok := f.(io.ReadSeeker)
	if !ok {
		return u
	}
	var dos struct {
		Magic  [2]byte
		_      [0x3a]byte
		Header uint32 // where the header of the program is
	}
	if binary.Read(r, binary.LittleEndian, &dos) != nil || string(dos.Magic[:]) != "MZ" {
		return u
	}
	if _, err := r.Seek(int64(dos.Header), io.SeekStart); err != nil {
		return u
	}
	var sections []pe.SectionHeader32
	sections, u.signed = readHeader(bufio.NewReader(r))
	for _, s := range sections {
		text := make([]byte, min(s.SizeOfRawData, s.VirtualSize, maxCommandLine))
		if _, err := r.Seek(int64(s.PointerToRawData), io.SeekStart); err != nil {
			continue
		}
		if _, err := io.ReadFull(r, text); err != nil {
			continue
		}
		text, _, _ = bytes.Cut(text, []byte{0})
		u.lines = append(u.lines, commandLine{string(text), int64(s.PointerToRawData)})
	}
	return u
}

// readHeader reads which sections of a program hold a command line, and whether
// it is signed. What the header says beyond the end of the file is not there.
func readHeader(r io.Reader) (sections []pe.SectionHeader32, signed bool) {
	var h struct {
		Signature [4]byte
		pe.FileHeader
	}
	if binary.Read(r, binary.LittleEndian, &h) != nil || string(h.Signature[:]) != "PE\x00\x00" {
		return nil, false
	}
	optional := make([]byte, h.SizeOfOptionalHeader)
	if _, err := io.ReadFull(r, optional); err != nil {
		return nil, false
	}
	for range h.NumberOfSections {
		var b [40]byte // a pe.SectionHeader32
		if _, err := io.ReadFull(r, b[:]); err != nil || len(sections) == maxProfiles {
			break
		}
		var s pe.SectionHeader32
		if string(b[:len(s.Name)]) != ".cmdline" {
			continue // of the many that there may be, few are decoded
		}
		if _, err := binary.Decode(b[:], binary.LittleEndian, &s); err == nil {
			sections = append(sections, s)
		}
	}
	return sections, isSigned(optional)
}

// isSigned looks for a certificate table (PE Format, "The Attribute Certificate
// Table").
func isSigned(optional []byte) bool {
	directories := 96 // of a program of 32 bits
	if len(optional) > 2 && binary.LittleEndian.Uint16(optional) == 0x20b {
		directories = 112
	}
	const entry, size = 8, 4 // bytes of a directory's entry, and of the address in it, before the size
	at := directories + entry*pe.IMAGE_DIRECTORY_ENTRY_SECURITY + size
	return at+4 <= len(optional) && binary.LittleEndian.Uint32(optional[at:]) > 0 &&
		binary.LittleEndian.Uint32(optional[directories-4:]) > pe.IMAGE_DIRECTORY_ENTRY_SECURITY
}

// rename gives what is to be written into the file so that its command lines are
// what change makes of them.
func (u uki) rename(name string, change func(string) string) (patches []Patch, err error) {
	for _, l := range u.lines {
		fresh := change(l.text)
		switch {
		case fresh == l.text:
			continue
		case u.signed:
			return nil, fault.New(fault.Image,
				"name the partition by what is in it, with UUID= or LABEL=, or sign when the image is made",
				"%s is signed, and its kernel command line names a partition by its UUID, which every image has anew", name)
		}
		patches = append(patches, Patch{name, l.offset, []byte(fresh)})
	}
	return patches, nil
}
