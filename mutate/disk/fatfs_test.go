package disk_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
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
// leads to no write behind it, also where its partition is larger.
func TestOverwriteOutsideFAT(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	t.Run("the last that the FAT has room for", func(t *testing.T) {
		overwriteOutside(t, 0, func(_, entries int) int { return entries - 2 })
	})
	t.Run("in a larger partition", func(t *testing.T) {
		overwriteOutside(t, 1<<20, func(_, entries int) int { return entries - 2 })
	})
	t.Run("the first that the volume lacks", func(t *testing.T) {
		overwriteOutside(t, 1<<20, func(behind, _ int) int { return behind })
	})
}

// overwriteOutside has a file begin at a cluster that the volume lacks: which one is chosen
// of the first of those and how many numbers the FAT has room for.
func overwriteOutside(t *testing.T, larger int64, choose func(behind, entries int) int) {
	t.Helper()
	f, v := fat(t, "16", 16<<20, map[string]string{"file": strings.Repeat("x", 100)})
	v.Size += larger
	truncate(t, f.Name(), v.Offset+v.Size)
	b := make([]byte, 1<<20)
	if _, err := f.ReadAt(b, v.Offset); err != nil {
		t.Fatal(err)
	}
	sector, reserved := int(b[11])|int(b[12])<<8, int(b[14])|int(b[15])<<8
	perFAT := int(b[22]) | int(b[23])<<8
	root := (reserved + 2*perFAT) * sector
	behind := (16<<20-root-(int(b[17])|int(b[18])<<8)*32)/(int(b[13])*sector) + 2
	last := choose(behind, perFAT*sector/2)
	if last < behind || last >= perFAT*sector/2 {
		t.Fatalf("cluster %d is no such one: %d, %d", last, behind, perFAT*sector/2)
	}
	slot := root + strings.Index(string(b[root:]), "FILE       ")
	b[slot+26], b[slot+27] = byte(last), byte(last>>8)
	b[reserved*sector+2*last], b[reserved*sector+2*last+1] = 0xff, 0xff
	if _, err := f.WriteAt(b, v.Offset); err != nil {
		t.Fatal(err)
	}
	before := sum(t, f)
	tree := openTree(t, v, f, disk.ReadWrite)
	if err := tree.Overwrite("file", make([]byte, 100), 0); err == nil || !strings.Contains(err.Error(), "invalid start cluster") {
		t.Errorf("Overwrite = %v", err)
	}
	if _, err := tree.ReadFile("file"); err == nil {
		t.Error("it is read")
	}
	if sum(t, f) != before {
		t.Error("the image has changed")
	}
}

// TestFileNamedAsTheLabel: the label of a volume is no file, though it lies among them, and
// no name is taken because of it: neither at the root's own place nor in its clusters.
func TestFileNamedAsTheLabel(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	for bits, size := range map[string]int64{"12": 2 << 20, "16": 16 << 20, "32": 64 << 20} {
		f, v := fat(t, bits, size, map[string]string{"BOOT": "text", "dir/x": "x", "other": "other"})
		fixtures.Program(t, "", "mlabel", "-i", f.Name()+"@@1048576", "::LABEL") // it lies behind the file
		rename(t, f, v, "LABEL      \x08", "BOOT       \x08")
		tree := openTree(t, v, f, disk.ReadWrite)
		if err := tree.Overwrite("BOOT", []byte("TEXT"), 0); err != nil {
			t.Errorf("FAT%s: %v", bits, err)
		}
		for name, want := range map[string]string{"BOOT": "TEXT", "dir/x": "x", "other": "other"} {
			if b, err := tree.ReadFile(name); err != nil || string(b) != want {
				t.Errorf("FAT%s: %s holds %q, %v, want %q", bits, name, b, err, want)
			}
		}
		if list, err := tree.ReadDir("."); len(list) != 3 || err != nil {
			t.Errorf("FAT%s: its root has %d files, %v", bits, len(list), err)
		}
	}
}

// rename puts another name into a directory's entry, as no program would.
func rename(t *testing.T, f *os.File, v disk.Volume, from, to string) {
	t.Helper()
	b := make([]byte, v.Size)
	if _, err := f.ReadAt(b, v.Offset); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, []byte(from)); n != 1 {
		t.Fatalf("%q is there %d times", from, n)
	}
	if _, err := f.WriteAt([]byte(to), v.Offset+int64(bytes.Index(b, []byte(from)))); err != nil {
		t.Fatal(err)
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

// TestFATDirectoryIsNoFile: reading one is an error and not the end of an empty file, and
// so is writing to it, be it nothing.
func TestFATDirectoryIsNoFile(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	f, v := fat(t, "12", 2<<20, map[string]string{"EFI/file": "text"})
	tree := openTree(t, v, f, disk.ReadWrite)
	if b, err := tree.ReadFile("EFI"); err == nil {
		t.Errorf("a directory holds %q", b)
	}
	for _, text := range []string{"", "text"} {
		if err := tree.Overwrite("EFI", []byte(text), 0); err == nil {
			t.Errorf("a directory takes %q", text)
		}
	}
}

// TestFATDirectoryInParts: a directory is given as [fs.ReadDirFile] promises, as a whole or
// in parts, and what is left is not given twice.
func TestFATDirectoryInParts(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	f, v := fat(t, "12", 2<<20, map[string]string{"d/a": "", "d/b": "", "d/c": "", "empty/": ""})
	tree := openTree(t, v, f, disk.ReadOnly)
	for _, tc := range []struct {
		dir   string
		parts []int
		want  string // how many of each, and a ! for the end
	}{
		{"d", []int{0, 0}, "3 0"},
		{"d", []int{-1, -1, 1}, "3 0 0!"},
		{"d", []int{2, 2, 2}, "2 1 0!"},
		{"d", []int{1, 0, 1, 0}, "1 2 0! 0"},
		{"d", []int{3, 3}, "3 0!"},
		{"d", []int{9}, "3"},
		{"empty", []int{0, 1, -1}, "0 0! 0"},
	} {
		dir, err := tree.Open(tc.dir)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range tc.parts {
			list, err := dir.(fs.ReadDirFile).ReadDir(n)
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(len(list))+map[bool]string{true: "!"}[err == io.EOF])
		}
		if got := strings.Join(got, " "); got != tc.want {
			t.Errorf("%s by %d: %s, want %s", tc.dir, tc.parts, got, tc.want)
		}
		dir.Close()
	}
}
