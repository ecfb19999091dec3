package uki_test

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/mutate/uki"
)

// program makes the least of a PE file with sections of those names and bytes.
func program(sections ...string) []byte {
	const head, data, alignment = 0x40, 0x1000, 0x200
	n := len(sections) / 2
	var b bytes.Buffer
	b.WriteString("MZ")
	b.Write(make([]byte, 0x3a))
	binary.Write(&b, binary.LittleEndian, uint32(head))
	b.WriteString("PE\x00\x00")
	optional := pe.OptionalHeader64{Magic: 0x20b, NumberOfRvaAndSizes: 16}
	binary.Write(&b, binary.LittleEndian, pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64,
		NumberOfSections: uint16(n), SizeOfOptionalHeader: uint16(binary.Size(optional)),
		PointerToSymbolTable: 1 << 30, NumberOfSymbols: 1 << 31})
	binary.Write(&b, binary.LittleEndian, optional)
	for i := range n {
		s := pe.SectionHeader32{VirtualSize: uint32(len(sections[2*i+1])), SizeOfRawData: alignment,
			PointerToRawData: uint32(data + alignment*i)}
		copy(s.Name[:], sections[2*i])
		binary.Write(&b, binary.LittleEndian, s)
	}
	for i := range n {
		b.Write(make([]byte, data+alignment*i-b.Len()))
		b.WriteString(sections[2*i+1])
	}
	b.Write(make([]byte, data+alignment*n-b.Len()))
	return b.Bytes()
}

func TestRead(t *testing.T) {
	files := fstest.MapFS{"a.efi": {Data: program(".osrel", "ID=x\n", ".linux", "kernel", ".cmdline", "ro\x00noise", ".uname", "6.1")}}
	u := uki.Read(files, "a.efi", ".linux", ".cmdline", ".uname", ".initrd")
	var got []string
	for _, s := range u.Sections {
		got = append(got, s.Name, s.Text())
	}
	if diff := cmp.Diff([]string{".linux", "kernel", ".cmdline", "ro", ".uname", "6.1"}, got); diff != "" {
		t.Errorf("sections (-want +got):\n%s", diff)
	}
	if s, ok := u.Find(".uname"); !ok || s.Offset != 0x1600 {
		t.Errorf("Find = %+v, %t", s, ok)
	}
	if _, ok := u.Find(".initrd"); ok || u.Signed {
		t.Error("it finds what is not there, or a signature")
	}
}

// FuzzRead: whatever a file says it is, each section is a part of it.
func FuzzRead(f *testing.F) {
	f.Add(program(".linux", "x", ".cmdline", "ro"))
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, b []byte) {
		u := uki.Read(fstest.MapFS{"a": {Data: b}}, "a", ".linux", ".cmdline")
		for _, s := range u.Sections {
			if s.Name != ".linux" && s.Name != ".cmdline" || !bytes.HasPrefix(b[s.Offset:], s.Head) {
				t.Fatalf("section %s of %d bytes at %d", s.Name, len(s.Head), s.Offset)
			}
		}
	})
}
