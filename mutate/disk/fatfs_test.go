package disk_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
)

// TestOverwriteFAT: a file of any name is overwritten where it is, also in
// pieces, and nothing but it changes.
func TestOverwriteFAT(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	files := map[string]string{
		"EFI/a/grub.cfg": "old a\n", "EFI/[Ab]/grub.cfg": "old b\n", "empty": "",
	}
	for bits, size := range map[string]int64{"12": 2 << 20, "16": 16 << 20, "32": 64 << 20} {
		t.Run(bits, func(t *testing.T) {
			f, v := fat(t, bits, size, files)
			at := fmt.Sprintf("%s@@%d", f.Name(), v.Offset)
			// A file that fills the hole which another left is in pieces.
			fixtures.Program(t, strings.Repeat("h", 10000), "mcopy", "-i", at, "-", "::hole")
			fixtures.Program(t, "wall", "mcopy", "-i", at, "-", "::wall")
			fixtures.Program(t, "", "mdel", "-i", at, "::hole")
			old, fresh := strings.Repeat("0123456789", 50001), strings.Repeat("abcdefghij", 50001)
			fixtures.Program(t, old, "mcopy", "-i", at, "-", "::pieces")

			tree := openTree(t, v, f, disk.ReadWrite)
			want := map[string]string{"EFI/[Ab]/grub.cfg": "new b\n", "empty": "", "pieces": fresh}
			for name, text := range want {
				if err := tree.Overwrite(name, []byte(text), 0); err != nil {
					t.Error(err)
				}
			}
			const offset = 9997 // in the hole, and beyond
			if err := tree.Overwrite("pieces", []byte(old[:8000]), offset); err != nil {
				t.Error(err)
			}
			fresh = fresh[:offset] + old[:8000] + fresh[offset+8000:]
			want["pieces"] = fresh
			want["EFI/a/grub.cfg"], want["wall"] = "old a\n", "wall"
			for _, name := range []string{"wall", "empty", "missing", "EFI"} {
				if err := tree.Overwrite(name, []byte("other"), 0); err == nil {
					t.Errorf("%s takes 5 bytes", name)
				}
			}
			for name, text := range want {
				if b, err := tree.ReadFile(name); err != nil || string(b) != text {
					t.Errorf("%s holds %d bytes, %v, not the %d that it should", name, len(b), err, len(text))
				}
			}
			if got := fixtures.Program(t, "", "mtype", "-i", at, "::pieces"); got != fresh {
				t.Errorf("mtype has %d other bytes", len(got))
			}
			alone := f.Name() + ".fat"
			fixtures.Program(t, "", "dd", "if="+f.Name(), "of="+alone, "bs=1M", "skip=1", "status=none")
			fixtures.Program(t, "", "fsck.vfat", "-n", alone)
		})
	}
}

// TestOverwriteOutsideFAT: a chain into clusters which the volume does not have
// leads to no write behind it.
func TestOverwriteOutsideFAT(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	f, v := fat(t, "16", 16<<20, map[string]string{"file": strings.Repeat("x", 100)})
	b := make([]byte, 1<<20)
	if _, err := f.ReadAt(b, v.Offset); err != nil {
		t.Fatal(err)
	}
	sector, reserved := int(b[11])|int(b[12])<<8, int(b[14])|int(b[15])<<8
	perFAT := int(b[22]) | int(b[23])<<8
	root := (reserved + 2*perFAT) * sector
	last := perFAT*sector/2 - 2 // which the FAT has room for, and the volume does not
	slot := root + strings.Index(string(b[root:]), "FILE       ")
	b[slot+26], b[slot+27] = byte(last), byte(last>>8)
	b[reserved*sector+2*last], b[reserved*sector+2*last+1] = 0xff, 0xff
	if _, err := f.WriteAt(b, v.Offset); err != nil {
		t.Fatal(err)
	}
	before, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	tree := openTree(t, v, f, disk.ReadWrite)
	if err := tree.Overwrite("file", make([]byte, 100), 0); err == nil || !strings.Contains(err.Error(), "outside the volume") {
		t.Errorf("Overwrite = %v", err)
	}
	if after, err := os.Stat(f.Name()); err != nil || after.Size() != before.Size() {
		t.Errorf("the image has %d bytes now, %v", after.Size(), err)
	}
}

// TestFATModes: what walks a tree goes by modes, and a directory that says it is a
// file hides all that is in it.
func TestFATModes(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	f, v := fat(t, "32", 64<<20, map[string]string{"EFI/a/grub.cfg": "text\n"})
	tree := openTree(t, v, f, disk.ReadOnly)
	for name, directory := range map[string]bool{"EFI": true, "EFI/a": true, "EFI/a/grub.cfg": false} {
		fi, err := tree.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		open, err := tree.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		again, err := open.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().IsDir() != directory || fi.Mode().IsRegular() == directory || again.Mode() != fi.Mode() {
			t.Errorf("%s has mode %s, and open %s", name, fi.Mode(), again.Mode())
		}
		open.Close()
	}
}
