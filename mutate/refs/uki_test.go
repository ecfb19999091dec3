package refs_test

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"fmt"
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
		NumberOfSections: uint16(len(lines)), SizeOfOptionalHeader: uint16(binary.Size(optional)), PointerToSymbolTable: 1 << 30, NumberOfSymbols: 1 << 31})
	binary.Write(&b, binary.LittleEndian, optional)
	for i, line := range lines {
		s := pe.SectionHeader32{VirtualSize: uint32(len(line)), SizeOfRawData: alignment, PointerToRawData: uint32(data + alignment*i)}
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
	lines := []string{"root=PARTUUID=" + old + " ro\x00noise UUID=x", "root=LABEL=rescue", "resume=PARTUUID=" + strings.ToUpper(old)}
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
	err := refs.Files{FS: files}.Rename(t.Context(), map[string]string{old: fresh}, func(string, []byte) error { return nil })
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
		there := map[string][]byte{}
		err := refs.Files{FS: files}.Rename(t.Context(), map[string]string{old: fresh}, func(name string, b []byte) error { there[name] = b; return nil })
		if err != nil || len(there) == 0 || bytes.Contains(image, []byte(fresh)) {
			return
		}
		back := rename(t, fstest.MapFS{ukiName: {Data: there[ukiName]}}, map[string]string{fresh: old})
		if !sameButCase(back[ukiName], string(image)) {
			t.Fatalf("there and back are %d bytes of %d, or others", len(back[ukiName]), len(image))
		}
	})
}
