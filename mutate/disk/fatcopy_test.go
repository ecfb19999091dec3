package disk_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
)

// TestFillFATReadsWhatWasWritten: mtools may do something else than it was told to, and
// say that all went well.
func TestFillFATReadsWhatWasWritten(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	mcopy, err := exec.LookPath("mcopy")
	if err != nil {
		t.Fatal(err)
	}
	// Its arguments end in -i IMAGE FILE... ::/
	const write = `"$mcopy" -s -Q -o -i "$7" `
	for _, tc := range []struct {
		name, script string
		files        map[string]string
		refused      string
	}{
		{"what it was told", `exec "$mcopy" "$@"`, map[string]string{"name": "text", "empty": ""}, ""},
		{"it says that it failed", `echo "Broken" >&2; exit 1`, map[string]string{"name": "text"}, "Broken"},
		{"nothing", ``, map[string]string{"name": "text"}, "write name to partition 1: mtools wrote something else"},
		{"not an empty file", ``, map[string]string{"name": ""}, "mtools wrote something else"},
		{"one of two", `shift 8; set -- "$1"; ` + `"$mcopy" -i "/proc/self/fd/3@@1048576" "$1" ::/`,
			map[string]string{"a": "text", "b": "text"}, "something else"},
		{"under a name in capitals", write + `"$8" ::/NAME`, map[string]string{"name": "text"}, "something else"},
		{"an empty file under such a name", write + `"$8" ::/NAME`, map[string]string{"name": ""}, "something else"},
		{"other bytes", `printf TEXT | ` + write + `- ::/name`, map[string]string{"name": "text"}, "something else"},
		{"fewer", `printf tex | ` + write + `- ::/name`, map[string]string{"name": "text"}, "something else"},
		{"none", `: | ` + write + `- ::/name`, map[string]string{"name": "text"}, "something else"},
		{"more", `printf texts | ` + write + `- ::/name`, map[string]string{"name": "text"}, "something else"},
		{"some in place of none", `printf text | ` + write + `- ::/name`, map[string]string{"name": ""}, "something else"},
		{"it is not asked to write nothing", `exit 1`, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, v := fat(t, "12", 2<<20, nil)
			dir := t.TempDir()
			script := "#!/bin/sh -e\nmcopy=" + mcopy + "\n" + tc.script + "\n"
			if err := os.WriteFile(filepath.Join(dir, "mcopy"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			_, err := fill(t, f, v, tc.files, nil)
			if (err == nil) != (tc.refused == "") || err != nil && !strings.Contains(err.Error(), tc.refused) {
				t.Errorf("%v, want %q", err, tc.refused)
			}
		})
	}
}

// TestFillFATToTheLastCluster: what just fits is written, and read again.
func TestFillFATToTheLastCluster(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	for more, fits := range map[int]bool{0: true, 1: false} {
		f, v := fat(t, "12", 2<<20, nil, "-s", "1")
		b := make([]byte, 512)
		if _, err := f.ReadAt(b, v.Offset); err != nil {
			t.Fatal(err)
		}
		reserved, perFAT, rootEntries := int(b[14]), int(b[22]), int(b[17])|int(b[18])<<8
		room := 2<<20 - (reserved+2*perFAT)*512 - rootEntries*32
		_, err := fill(t, f, v, map[string]string{"all": strings.Repeat("x", room+more)}, nil)
		if fits && err != nil || !fits && !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%d bytes where there is room for %d: %v", room+more, room, err)
		}
	}
}

// TestFillSmallFAT32: mtools would take its directories for full. The smallest that the
// format allows is none of them.
func TestFillSmallFAT32(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	for _, tc := range []struct{ reserved, refused string }{
		{"43", ""}, {"44", "of so few clusters (65524)"},
	} {
		f, v := fat(t, "32", 66592*512, nil, "-s", "1", "-R", tc.reserved)
		_, err := fill(t, f, v, map[string]string{"x": "x"}, nil)
		if (err == nil) != (tc.refused == "") || err != nil && !strings.Contains(err.Error(), tc.refused) {
			t.Errorf("%s reserved sectors: %v, want %q", tc.reserved, err, tc.refused)
		}
	}
}

// TestOpenFATOnce: whoever asks gets the same tree, by which it is known that nothing was
// written since; one that cannot be read is not taken for an empty one the next time.
func TestOpenFATOnce(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	f, v := fat(t, "12", 2<<20, nil)
	i, err := fill(t, f, v, map[string]string{"a": "a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	first, err := i.OpenFAT(v)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := i.OpenFAT(v); again != first || err != nil {
		t.Errorf("it is another tree, %v", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "b"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := i.FillFAT(t.Context(), v, dir); err != nil {
		t.Fatal(err)
	}
	if written, err := i.OpenFAT(v); written == first || err != nil {
		t.Errorf("it is the same tree after something was written, %v", err)
	}
	v.Slot = 2
	v.Offset = 0
	for range 2 {
		if tree, err := i.OpenFAT(v); err == nil {
			t.Errorf("what is no FAT is opened: %v", tree)
		}
	}
}

// TestTwoFilesOfOneName: damage may leave two, or somebody who wants to have another file
// read here than at the start of the system. Neither is read or written.
func TestTwoFilesOfOneName(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	f, v := fat(t, "12", 2<<20, map[string]string{"EFI/x": ""})
	for name, text := range map[string]string{"AAAAAAAA": "first", "BBBBBBBB": "the second", "CCCCCCCC": "other"} {
		fixtures.Program(t, text, "mcopy", "-i", f.Name()+"@@1048576", "-", "::EFI/"+name)
	}
	rename(t, f, v, "BBBBBBBB   ", "AAAAAAAA   ")
	i, err := fill(t, f, v, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := i.ReadFAT(v, "efi/aaaaaaaa")
	if fault.Of(err) != fault.Image || !strings.Contains(err.Error(), "2 files have that name") {
		t.Errorf("%q is read, %v", b, err)
	}
	if b, err := i.ReadFAT(v, "efi/cccccccc"); err != nil || string(b) != "other" {
		t.Errorf("the other file holds %q, %v", b, err)
	}
	tree := openTree(t, v, f, disk.ReadWrite)
	if err := tree.Overwrite("EFI/AAAAAAAA", []byte("x"), 0); err == nil {
		t.Error("one of the two is overwritten")
	}
}

// TestStatFATWithDots: a dot on the way is where it stands.
func TestStatFATWithDots(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	f, v := fat(t, "16", 16<<20, map[string]string{"EFI/debian/grub.cfg": "text\n"})
	i, err := fill(t, f, v, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"./EFI/debian/grub.cfg", "EFI/./debian/././GRUB.cfg", "EFI//debian/grub.cfg/."} {
		if fi, err := i.StatFAT(v, name); err != nil || fi == nil || fi.Size() != 5 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
		if b, err := i.ReadFAT(v, name); err != nil || string(b) != "text\n" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for _, name := range []string{".", "", "./EFI"} {
		if _, err := i.ReadFAT(v, name); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the directory %q is read: %v", name, err)
		}
	}
}
