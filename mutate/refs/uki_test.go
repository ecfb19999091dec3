package refs_test

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/refs"
)

const ukiName = "EFI/Linux/debian.efi"

// uki makes the least of a PE file that has these command lines; a script test
// does it with objcopy(1).
func uki(signed bool, lines ...string) []byte {
	const head, data, alignment = 0x40, 0x2000, 0x200
	var b bytes.Buffer
	b.WriteString("MZ")
	b.Write(make([]byte, 0x3a))
	binary.Write(&b, binary.LittleEndian, uint32(head))
	b.WriteString("PE\x00\x00")
	optional := pe.OptionalHeader64{Magic: 0x20b, NumberOfRvaAndSizes: 16}
	if signed {
		optional.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY] = pe.DataDirectory{VirtualAddress: 1, Size: 8}
	}
	binary.Write(&b, binary.LittleEndian, pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64,
		NumberOfSections: uint16(len(lines)), SizeOfOptionalHeader: uint16(binary.Size(optional)),
		PointerToSymbolTable: 1 << 30, NumberOfSymbols: 1 << 31})
	binary.Write(&b, binary.LittleEndian, optional)
	for i, line := range lines {
		s := pe.SectionHeader32{VirtualSize: uint32(len(line)), SizeOfRawData: alignment,
			PointerToRawData: uint32(data + alignment*i)}
		copy(s.Name[:], ".cmdline")
		binary.Write(&b, binary.LittleEndian, s)
	}
	for i, line := range lines {
		b.Write(make([]byte, data+alignment*i-b.Len()))
		b.WriteString(line)
	}
	b.Write(make([]byte, data+alignment*len(lines)-b.Len()))
	return b.Bytes()
}

func TestUKI(t *testing.T) {
	const old, fresh = "3f519074-8e2c-4da0-b143-2c7ea5f90803", "2e408f63-7d1b-4c9f-a032-1b6d94e8f702"
	lines := []string{"root=PARTUUID=" + old + " ro\x00noise UUID=x", "root=LABEL=rescue",
		"resume=PARTUUID=" + strings.ToUpper(old)}
	image := uki(false, lines...)
	files := fstest.MapFS{ukiName: {Data: image}}
	want := []refs.Reference{
		{File: ukiName, Spec: "PARTUUID=" + old, Needed: true},
		{File: ukiName, Spec: "LABEL=rescue", Needed: true},
		{File: ukiName, Spec: "PARTUUID=" + strings.ToUpper(old), Needed: true},
	}
	if diff := cmp.Diff(want, references(t, refs.Files{FS: files})); diff != "" {
		t.Errorf("References (-want +got):\n%s", diff)
	}
	changed := strings.ReplaceAll(strings.ReplaceAll(string(image), old, fresh), strings.ToUpper(old), fresh)
	if got := rename(t, files, map[string]string{old: fresh}); got[ukiName] != changed || len(got) != 1 {
		t.Error("Rename changed something else, or not all")
	}
	if got := rename(t, files, map[string]string{fresh: old}); len(got) > 0 {
		t.Error("Rename writes what does not change")
	}

	files = fstest.MapFS{ukiName: {Data: uki(true, lines...)}}
	err := refs.Files{FS: files}.Rename(t.Context(), refs.Names{Partitions: map[string]string{old: fresh}},
		func(refs.Patch) error { return nil })
	if fault.Of(err) != fault.Image || !strings.Contains(err.Error(), ukiName+" is signed") || fault.Mend(err) == "" {
		t.Errorf("Rename of a signed image = %v, want one about the image", err)
	}
	if got := rename(t, files, map[string]string{fresh: old}); len(got) > 0 {
		t.Error("Rename writes a signed image")
	}
}

// TestUKIBounds: what a file claims to hold is not what is read of it.
func TestUKIBounds(t *testing.T) {
	var lines []string
	for i := range 100 {
		lines = append(lines, fmt.Sprintf("root=LABEL=profile-%d", i))
	}
	files := fstest.MapFS{ukiName: {Data: uki(false, lines...)}}
	if found := references(t, refs.Files{FS: files}); len(found) != 32 {
		t.Errorf("%d references of 100 sections, want those of 32", len(found))
	}
}

// section is one of a PE file: what its header says, and where its bytes are.
type section struct {
	name          string
	size, virtual int // bytes in the file, and in memory
	at            int
	text          string
}

// peFile is a PE file whose header is at a place, with those sections.
func peFile(header, length int, optional any, sections ...section) []byte {
	b := make([]byte, length)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[0x3c:], uint32(header))
	var h bytes.Buffer
	h.WriteString("PE\x00\x00")
	binary.Write(&h, binary.LittleEndian, pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64,
		NumberOfSections: uint16(len(sections)), SizeOfOptionalHeader: uint16(binary.Size(optional)),
		PointerToSymbolTable: 0x41414141, NumberOfSymbols: 0x81818181})
	binary.Write(&h, binary.LittleEndian, optional)
	for _, s := range sections {
		x := pe.SectionHeader32{VirtualSize: uint32(s.virtual), SizeOfRawData: uint32(s.size), PointerToRawData: uint32(s.at)}
		copy(x.Name[:], s.name)
		binary.Write(&h, binary.LittleEndian, x)
	}
	copy(b[header:], h.Bytes())
	for _, s := range sections {
		copy(b[min(s.at, length):], s.text)
	}
	return b
}

func pe64() pe.OptionalHeader64 { return pe.OptionalHeader64{Magic: 0x20b, NumberOfRvaAndSizes: 16} }

// TestUKISections: the command lines are what the sections of that name hold,
// in the file and in memory, up to the first NUL.
func TestUKISections(t *testing.T) {
	const line = "root=LABEL=abcdef"
	long := strings.Repeat(" ", 64<<10-len("LABEL=far")) + "LABEL=far"
	for _, tc := range []struct {
		name  string
		image []byte
		want  string // the volumes named
	}{
		{"one", peFile(0x40, 0x3000, pe64(), section{".cmdline", 512, len(line), 0x2000, line}), "LABEL=abcdef"},
		{"cut by its size in memory", peFile(0x40, 0x3000, pe64(), section{".cmdline", 512, len(line) - 3, 0x2000, line}),
			"LABEL=abc"},
		{"cut by its size in the file", peFile(0x40, 0x3000, pe64(), section{".cmdline", len(line) - 2, 512, 0x2000, line}),
			"LABEL=abcd"},
		{"cut by a NUL", peFile(0x40, 0x3000, pe64(), section{".cmdline", 512, 512, 0x2000, "LABEL=a\x00LABEL=b"}),
			"LABEL=a"},
		{"of other names", peFile(0x40, 0x3000, pe64(), section{".osrel", 512, 512, 0x2000, "LABEL=o"},
			section{".cmdline", 512, 512, 0x2200, "LABEL=c"}, section{".linux", 512, 512, 0x2400, "LABEL=l"}), "LABEL=c"},
		{"beyond the file, and another", peFile(0x40, 0x3000, pe64(), section{".cmdline", 512, 512, 0x9000, ""},
			section{".cmdline", 512, 512, 0x2e00, "LABEL=c"}), "LABEL=c"},
		{"half beyond the file, and another",
			peFile(0x40, 0x3000, pe64(), section{".cmdline", 512, 512, 0x2f00, "LABEL=half"},
				section{".cmdline", 512, 512, 0x2000, "LABEL=c"}), "LABEL=c"},
		{"as long as a kernel takes", peFile(0x40, 0x20000, pe64(), section{".cmdline", 1 << 16, 1 << 16, 0x2000, long}),
			"LABEL=far"},
		{"longer", peFile(0x40, 0x20000, pe64(), section{".cmdline", 1<<16 + 512, 1<<16 + 512, 0x2000, " " + long}),
			"LABEL=fa"},
		{"far behind the header", peFile(0x40, 0x90000, pe64(), section{".cmdline", 512, 512, 0x80000, line}),
			"LABEL=abcdef"},
		{"a header far behind", peFile(0xff00-0x200, 0x20000, pe64(), section{".cmdline", 512, 512, 0x11000, line}),
			"LABEL=abcdef"},
		{"a header very far behind", peFile(0x80000, 0x90000, pe64(), section{".cmdline", 512, 512, 0x11000, line}),
			"LABEL=abcdef"},
		{"a header beyond the file", peFile(0x40, 0x3000, pe64(), section{".cmdline", 512, 512, 0x2000, line})[:0x50], ""},
		{"too short for a header", []byte("MZ")[:2], ""},
		{"short", make([]byte, 0x3f), ""},
		{"no PE", make([]byte, 0x40), ""},
	} {
		files := fstest.MapFS{ukiName: {Data: tc.image}}
		var got []string
		for _, r := range references(t, refs.Files{FS: files}) {
			got = append(got, r.Spec)
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s: volumes %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestNoUKI: a file without both marks of a program has no command line.
func TestNoUKI(t *testing.T) {
	image := uki(false, "root=LABEL=a")
	for at, mark := range map[int]string{0: "MZ", 0x40: "PE"} {
		if string(image[at:at+2]) != mark {
			t.Fatalf("no %s at %#x", mark, at)
		}
		b := bytes.Clone(image)
		copy(b[at:], "no")
		if found := references(t, refs.Files{FS: fstest.MapFS{ukiName: {Data: b}}}); len(found) > 0 {
			t.Errorf("without %s: %v", mark, found)
		}
	}
}

// TestSignedByTheTable: an image is signed if the table of certificates is within
// the header, and among the tables that the header counts.
func TestSignedByTheTable(t *testing.T) {
	const old, fresh = "3f519074-8e2c-4da0-b143-2c7ea5f90803", "00000000-1111-4222-8333-444444444444"
	const end = 112 + 8*pe.IMAGE_DIRECTORY_ENTRY_SECURITY + 8 // of its entry
	for _, tc := range []struct {
		length int
		tables uint32
		signed bool
	}{
		{240, 16, true}, {end, 16, true}, {end - 1, 16, false}, {end - 4, 16, false},
		{240, pe.IMAGE_DIRECTORY_ENTRY_SECURITY + 1, true}, {240, pe.IMAGE_DIRECTORY_ENTRY_SECURITY, false},
	} {
		h := pe64()
		h.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY].Size, h.NumberOfRvaAndSizes = 1, tc.tables
		var optional bytes.Buffer
		binary.Write(&optional, binary.LittleEndian, h)
		image := peFile(0x40, 0x3000, optional.Bytes()[:tc.length], section{".cmdline", 512, 512, 0x2000, "root=PARTUUID=" + old})
		err := refs.Files{FS: fstest.MapFS{ukiName: {Data: image}}}.Rename(t.Context(), refs.Names{Partitions: map[string]string{old: fresh}},
			func(refs.Patch) error { return nil })
		if (err != nil) != tc.signed {
			t.Errorf("a header of %d bytes and %d tables: %v, want signed: %t", tc.length, tc.tables, err, tc.signed)
		}
	}
}

// TestUKIThatCannotChange: a signature covers all of the file, and the text has
// no other place to be.
func TestUKIThatCannotChange(t *testing.T) {
	const old, fresh = "3f519074-8e2c-4da0-b143-2c7ea5f90803", "00000000-1111-4222-8333-444444444444"
	signed64, signed32 := pe64(), pe.OptionalHeader32{Magic: 0x10b, NumberOfRvaAndSizes: 16}
	signed64.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY].Size = 1
	plain32 := signed32
	signed32.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY].Size = 1
	text := section{".cmdline", 512, 512, 0x2000, "root=PARTUUID=" + old}
	for _, tc := range []struct {
		name    string
		image   []byte
		becomes string
		want    string // in the error; changed if empty
	}{
		{"of 64 bits", peFile(0x40, 0x3000, pe64(), text), fresh, ""},
		{"of 32 bits", peFile(0x40, 0x3000, plain32, text), fresh, ""},
		{"of 64 bits and signed", peFile(0x40, 0x3000, signed64, text), fresh, "is signed"},
		{"of 32 bits and signed", peFile(0x40, 0x3000, signed32, text), fresh, "is signed"},
		{"to the end of the file", peFile(0x40, 0x2000+14+36, pe64(), section{".cmdline", 50, 50, 0x2000, text.text}),
			fresh, ""},
		{"by something longer", peFile(0x40, 0x3000, pe64(), text), fresh + "5", "no room for another length"},
		{"by something shorter", peFile(0x40, 0x3000, pe64(), text), fresh[1:], "no room for another length"},
	} {
		files := fstest.MapFS{ukiName: {Data: bytes.Clone(tc.image)}}
		var got []byte
		err := refs.Files{FS: files}.Rename(t.Context(), refs.Names{Partitions: map[string]string{old: tc.becomes}}, func(p refs.Patch) error {
			got = bytes.Clone(tc.image)
			copy(got[p.Offset:], p.Bytes)
			return nil
		})
		switch {
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || got != nil):
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		case tc.want == "" && (err != nil || !bytes.Equal(got, bytes.Replace(tc.image, []byte(old), []byte(fresh), 1))):
			t.Errorf("%s: %v, or other bytes changed", tc.name, err)
		}
	}
}

// TestUKIsThatAreLarge: of a file that would not fit in memory, no more is kept
// than what changes, whatever number of names it has.
func TestUKIsThatAreLarge(t *testing.T) {
	const old = "3f519074-8e2c-4da0-b143-2c7ea5f90803"
	dir := t.TempDir()
	name := filepath.Join(dir, ukiName)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	image := peFile(0x40, 0x3000, pe64(), section{".cmdline", 512, 512, 0x2000, "root=PARTUUID=" + old})
	if err := os.WriteFile(name, image, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, 1<<40); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := os.Symlink("debian.efi", filepath.Join(dir, fmt.Sprintf("EFI/Linux/%d.efi", i))); err != nil {
			t.Fatal(err)
		}
	}
	var got []refs.Patch
	err := refs.Files{FS: os.DirFS(dir)}.Rename(t.Context(), refs.Names{Partitions: map[string]string{old: strings.ToUpper(old)}},
		func(p refs.Patch) error { got = append(got, p); return nil })
	want := refs.Patch{File: ukiName, Offset: 0x2000, Bytes: []byte("root=PARTUUID=" + strings.ToUpper(old))}
	if err != nil || len(got) != 11 {
		t.Fatalf("Rename = %v and gives %d patches, want one for each of 11 names", err, len(got))
	}
	if diff := cmp.Diff(want, got[10]); diff != "" {
		t.Errorf("patch (-want +got):\n%s", diff)
	}
}

// TestUKIsOfManyNames: the bytes that change are bounded together.
func TestUKIsOfManyNames(t *testing.T) {
	const old, fresh = "3f519074-8e2c-4da0-b143-2c7ea5f90803", "00000000-1111-4222-8333-444444444444"
	const size = 64 << 10
	text := "root=PARTUUID=" + old + strings.Repeat(" ", size-len("root=PARTUUID=")-len(old))
	image := peFile(0x40, 0x20000, pe64(), section{".cmdline", size, size, 0x2000, text})
	files := fstest.MapFS{}
	for i := range 32<<20/size + 1 {
		files[fmt.Sprintf("EFI/Linux/%d.efi", i)] = &fstest.MapFile{Data: image}
	}
	given := 0
	err := refs.Files{FS: files}.Rename(t.Context(), refs.Names{Partitions: map[string]string{old: fresh}},
		func(p refs.Patch) error { given += len(p.Bytes); return nil })
	if fault.Of(err) != fault.Image || !strings.Contains(fmt.Sprint(err), "more than 32 MiB") || given != 32<<20 {
		t.Errorf("Rename = %v after %d bytes, want the bound of 32 MiB", err, given)
	}
}

// FuzzUKI: whatever a file says it is, Rename keeps its length, and there and
// back gives its bytes again.
func FuzzUKI(f *testing.F) {
	const old, fresh = "3f519074-8e2c-4da0-b143-2c7ea5f90803", "00000000-1111-4222-8333-444444444444"
	f.Add(uki(false, "root=PARTUUID="+old))
	f.Add(uki(true, "root=PARTUUID="+old, "x"))
	f.Add(uki(false))
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, image []byte) {
		files := fstest.MapFS{ukiName: {Data: image}}
		references(t, refs.Files{FS: files})
		there, changed := bytes.Clone(image), false
		err := refs.Files{FS: files}.Rename(t.Context(), refs.Names{Partitions: map[string]string{old: fresh}}, func(p refs.Patch) error {
			if p.Offset+int64(len(p.Bytes)) > int64(len(image)) {
				t.Fatalf("a patch of %d bytes at %d, of %d", len(p.Bytes), p.Offset, len(image))
			}
			copy(there[p.Offset:], p.Bytes)
			changed = true
			return nil
		})
		if err != nil || !changed || bytes.Contains(image, []byte(fresh)) {
			return
		}
		back := rename(t, fstest.MapFS{ukiName: {Data: there}}, map[string]string{fresh: old})
		if !sameButCase(back[ukiName], string(image)) {
			t.Fatalf("there and back are %d bytes of %d, or others", len(back[ukiName]), len(image))
		}
	})
}
