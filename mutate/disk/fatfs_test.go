package disk_test

import (
	"encoding/binary"
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
	files := map[string]string{"EFI/[Ab]/grub.cfg": "old b\n", "empty": ""}
	for _, tc := range []struct {
		name, bits string
		size       int64
		options    []string // for mkfs.vfat
	}{
		{"FAT12", "12", 2 << 20, nil},
		{"FAT16", "16", 16 << 20, nil},
		{"FAT32", "32", 64 << 20, nil},
		{"one FAT12", "12", 2 << 20, []string{"-f", "1"}},
		{"one FAT16", "16", 16 << 20, []string{"-f", "1"}},
		{"one FAT32", "32", 64 << 20, []string{"-f", "1"}},
		{"64 reserved sectors", "32", 64 << 20, []string{"-R", "64"}},
		{"sectors of 2048 bytes", "16", 64 << 20, []string{"-S", "2048"}},
		{"FAT16 of large sectors", "16", 64 << 20, []string{"-S", "4096"}},
		{"FAT32 of large sectors", "32", 300 << 20, []string{"-S", "4096"}},
		{"a large root directory", "16", 16 << 20, []string{"-r", "8192"}},
		{"moved root", "32", 64 << 20, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, v := fat(t, tc.bits, tc.size, files, tc.options...)
			if tc.name == "moved root" {
				moveRoot(t, f, v)
			}
			at := fmt.Sprintf("%s@@%d", f.Name(), v.Offset)
			// mcopy takes the name of the other directory for a pattern that fits this one, so this one is later.
			fixtures.Program(t, "", "mmd", "-i", at, "::EFI/a")
			fixtures.Program(t, "old a\n", "mcopy", "-i", at, "-", "::EFI/a/grub.cfg")
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

// moveRoot puts the root directory of a new FAT32 into the last cluster, as no
// formatter does and the format allows.
func moveRoot(t *testing.T, f *os.File, v disk.Volume) {
	t.Helper()
	b := make([]byte, v.Size)
	if _, err := f.ReadAt(b, v.Offset); err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	sector, reserved, perFAT := int(le.Uint16(b[11:])), int(le.Uint16(b[14:])), int(le.Uint32(b[36:]))
	cluster, data := int(b[13])*sector, (reserved+2*perFAT)*sector
	last := (len(b)-data)/cluster + 1
	copy(b[data+(last-2)*cluster:], b[data:data+cluster])
	clear(b[data : data+cluster])
	for n := range 2 {
		fat := b[(reserved+n*perFAT)*sector:]
		le.PutUint32(fat[4*last:], le.Uint32(fat[4*2:]))
		le.PutUint32(fat[4*2:], 0)
	}
	for _, boot := range [][]byte{b, b[6*sector:]} {
		le.PutUint32(boot[44:], uint32(last))
	}
	if _, err := f.WriteAt(b, v.Offset); err != nil {
		t.Fatal(err)
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
	if err := tree.Overwrite("file", make([]byte, 100), 0); err == nil || !strings.Contains(err.Error(), "invalid start cluster") {
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
