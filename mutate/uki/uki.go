// Package uki reads unified kernel images (UAPI.5): programs for EFI whose
// sections are a kernel, its initrd, its command line and what it is called.
//
// A stranger wrote them. The header is read by hand, because debug/pe also reads
// symbols and relocations, which firmware ignores: a fault in them must not hide
// what boots. Of each section no more is taken than anybody has use for.
package uki

import (
	"bufio"
	"bytes"
	"debug/pe"
	"encoding/binary"
	"io"
	"io/fs"
	"strings"
)

// maxText is more than a kernel takes as its command line, in bytes, and
// maxProfiles more sections of one name than anybody chooses from.
const (
	maxText     = 64 << 10
	maxProfiles = 32
)

// File is what was read of a program.
type File struct {
	Sections []Section // those that were asked for, in the order of the file
	Signed   bool      // for Secure Boot: no byte can change
}

// Section is a part of a program.
type Section struct {
	Name   string
	Offset int64  // of its bytes in the file
	Head   []byte // its bytes, of a large section the first 64 KiB
}

// Text is the section as a text, which ends at the first NUL.
func (s Section) Text() string {
	text, _, _ := bytes.Cut(s.Head, []byte{0})
	return string(text)
}

// Find gives the first section of a name.
func (f File) Find(name string) (Section, bool) {
	for _, s := range f.Sections {
		if s.Name == name {
			return s, true
		}
	}
	return Section{}, false
}

// Read reads the sections of those names. A file that is no such program has
// none, and what its header says beyond the end of the file is not there.
func Read(t fs.FS, name string, sections ...string) (u File) {
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
	headers, signed := readHeader(bufio.NewReader(r), sections)
	u.Signed = signed
	for _, h := range headers {
		head := make([]byte, min(h.SizeOfRawData, h.VirtualSize, maxText))
		if _, err := r.Seek(int64(h.PointerToRawData), io.SeekStart); err != nil {
			continue
		}
		if _, err := io.ReadFull(r, head); err != nil {
			continue
		}
		u.Sections = append(u.Sections, Section{nameOf(h.Name[:]), int64(h.PointerToRawData), head})
	}
	return u
}

func nameOf(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// readHeader reads where the sections of those names are, and whether the program
// is signed.
func readHeader(r io.Reader, names []string) (sections []pe.SectionHeader32, signed bool) {
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
	room := map[string]int{}
	for _, name := range names {
		room[name] = maxProfiles
	}
	for range h.NumberOfSections {
		var b [40]byte // a pe.SectionHeader32
		if _, err := io.ReadFull(r, b[:]); err != nil {
			break
		}
		var s pe.SectionHeader32
		name := nameOf(b[:len(s.Name)])
		if room[name] == 0 {
			continue // of the many that there may be, few are decoded
		}
		room[name]--
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
