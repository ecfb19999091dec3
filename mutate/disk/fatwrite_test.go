package disk_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
)

// fill copies files into a FAT volume, and gives the image to look at it with.
func fill(t *testing.T, f *os.File, v disk.Volume, files map[string]string, prepare func(dir string)) (*disk.Image, error) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if prepare != nil {
		prepare(dir)
	}
	i, err := disk.OpenKnown(t.Context(), f, &disk.Layout{Volumes: []disk.Volume{v}}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	if _, err := i.OpenFAT(v); err != nil { // so that there is something to be read anew
		t.Fatal(err)
	}
	return i, i.FillFAT(t.Context(), v, dir)
}

// TestFillFAT: files come to be in the volume, over those of the same name, with their
// times, and nothing else changes.
func TestFillFAT(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	large := strings.Repeat("0123456789abcdef", 30000)
	long := strings.Repeat("n", 251) + ".efi"
	written := map[string]string{
		"efi/debian/GRUB.cfg": "new\n", "EFI-2/a b;+,=[1]{}$'x~1.efi": "odd\n", "Große Namen/ünïcode.conf": "ü\n", long: "long\n",
		"empty": "", "-dash": "dash\n", ".hidden": "hidden\n", "loader/entries/deep/er/x.conf": large, "locked": "open\n",
		"no character \uffff.efi": "odd\n",
	}
	times := map[string]time.Time{
		"-dash": time.Date(2024, 5, 6, 7, 8, 10, 0, time.UTC), "empty": time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC),
		".hidden": time.Date(2107, 12, 31, 23, 59, 58, 0, time.UTC),
	}
	for _, tc := range []struct {
		name, bits string
		size       int64
		options    []string
	}{
		{"FAT12", "12", 4 << 20, nil},
		{"FAT16", "16", 16 << 20, nil},
		{"FAT32", "32", 64 << 20, nil},
		{"one FAT16", "16", 16 << 20, []string{"-f", "1"}},
		{"one FAT32", "32", 64 << 20, []string{"-f", "1"}},
		{"large sectors", "16", 64 << 20, []string{"-S", "4096"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("TZ", "Asia/Tokyo")
			t.Setenv("MTOOLS_NO_VFAT", "1")
			f, v := fat(t, tc.bits, tc.size, map[string]string{
				"EFI/debian/grub.cfg": "old\n", "EFI/debian/other": "other\n", "LOADER/LOADER.CONF": "timeout 0\n", "locked": "shut\n",
			}, tc.options...)
			at := fmt.Sprintf("%s@@%d", f.Name(), v.Offset)
			fixtures.Program(t, "", "mattrib", "-i", at, "+r", "::/locked")
			i, err := fill(t, f, v, written, func(dir string) {
				for name, set := range times {
					switch set.Year() { // beyond what FAT can hold
					case 1980:
						set = time.Unix(0, 0)
					case 2107:
						set = set.AddDate(50, 0, 0)
					}
					if err := os.Chtimes(filepath.Join(dir, name), set, set); err != nil {
						t.Fatal(err)
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{
				"EFI/debian/grub.cfg": "new\n", "EFI/debian/other": "other\n", "LOADER/LOADER.CONF": "timeout 0\n",
				"LOADER/entries/deep/er/x.conf": large,
			}
			for name, content := range written {
				if !strings.HasPrefix(name, "efi/") && !strings.HasPrefix(name, "loader/") {
					want[name] = content
				}
			}
			tree, err := i.OpenFAT(v)
			if err != nil {
				t.Fatal(err)
			}
			found := map[string]string{}
			err = fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					var b []byte
					b, err = tree.ReadFile(name)
					found[name] = string(b)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			for name, content := range want {
				if got, ok := found[name]; !ok || got != content {
					t.Errorf("%s: %t, %d bytes, want %d", name, ok, len(got), len(content))
				}
				delete(found, name)
			}
			for name := range found {
				t.Errorf("there is %q", name)
			}
			for name, set := range times {
				if fi, err := i.StatFAT(v, name); err != nil || !fi.ModTime().Equal(set) {
					t.Errorf("%s is of %v, %v; want %v", name, fi.ModTime(), err, set)
				}
			}
			if got := fixtures.Program(t, "", "mtype", "-i", at, "::EFI/debian/grub.cfg"); got != "new\n" {
				t.Errorf("mtype says %q", got)
			}
			alone := f.Name() + ".fat"
			fixtures.Program(t, "", "dd", "if="+f.Name(), "of="+alone, "bs=1M", "skip=1", "status=none")
			fixtures.Program(t, "", "fsck.vfat", "-n", alone)
			if fi, err := f.Stat(); err != nil || fi.Size() != v.Offset+v.Size {
				t.Errorf("the image has %d bytes, %v", fi.Size(), err)
			}
		})
	}
}

// TestFillFATRefuses what FAT cannot have, before anything is written.
func TestFillFATRefuses(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	f, v := fat(t, "16", 16<<20, map[string]string{"EFI/debian/grub.cfg": "old\n", "file": "file\n"})
	before := fixtures.Program(t, "", "sha256sum", f.Name())
	for _, tc := range []struct {
		name  string
		files map[string]string
		why   string
	}{
		{"a colon", map[string]string{"a:b": ""}, "cannot have a name with one of"},
		{"a question mark in a directory", map[string]string{"what?/x": ""}, "write what?: FAT cannot have a name with one of"},
		{"a control character", map[string]string{"a\x01b": ""}, "control character"},
		{"a dot at the end", map[string]string{"dot.": ""}, "ends in a dot or a space"},
		{"a space at the end", map[string]string{"space ": ""}, "ends in a dot or a space"},
		{"no UTF-8", map[string]string{"a\xffb": ""}, "not in UTF-8"},
		{"an emoji", map[string]string{"a😀": ""}, "beyond Unicode's first"},
		{"a device", map[string]string{"EFI/con.txt": ""}, "a device to DOS"},
		{"twins", map[string]string{"Twin": "", "twin": ""}, "does not tell it from"},
		{"a file over a directory", map[string]string{"efi/DEBIAN": ""}, "a directory is there, and is not replaced"},
		{"a directory over a file", map[string]string{"File/x": ""}, "what is there is not a directory"},
		{"more than there is room for", map[string]string{"big": strings.Repeat("x", 17<<20)}, "has no room for 17408 KiB in 1 files"},
	} {
		_, err := fill(t, f, v, tc.files, nil)
		if err == nil || !strings.Contains(err.Error(), tc.why) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.why)
		}
		if full := strings.Contains(tc.why, "room"); errors.Is(err, syscall.ENOSPC) != full {
			t.Errorf("%s: %v is ENOSPC: %t", tc.name, err, !full)
		}
	}
	_, err := fill(t, f, v, nil, func(dir string) {
		if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
	})
	if err == nil || !strings.Contains(err.Error(), "files and directories only") {
		t.Errorf("a link: %v", err)
	}
	if after := fixtures.Program(t, "", "sha256sum", f.Name()); after != before {
		t.Error("the image has changed")
	}
}

// TestFillFATUntilItIsFull: that it is full shows only to mtools.
func TestFillFATUntilItIsFull(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	f, v := fat(t, "16", 16<<20, map[string]string{"there": strings.Repeat("x", 8<<20)})
	if _, err := fill(t, f, v, map[string]string{"a/b": strings.Repeat("y", 9<<20)}, nil); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v, want that there is no room", err)
	}
	f, v = fat(t, "16", 16<<20, nil)
	files := map[string]string{} // more than a root directory of 512 entries has room for
	for n := range 300 {
		files[fmt.Sprintf("file with a long name, number %d", n)] = "x"
	}
	if _, err := fill(t, f, v, files, nil); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v, want that there is no room", err)
	}
}

// TestFillFATEndsWithTheContext: so that a step's time holds.
func TestFillFATEndsWithTheContext(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	f, v := fat(t, "16", 16<<20, nil)
	i, err := fill(t, f, v, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := i.FillFAT(ctx, v, dir); !errors.Is(err, cause) {
		t.Errorf("%v, want the cause", err)
	}
}

// TestStatFAT: names are found whatever their case, and those that are not there are
// said to be so.
func TestStatFAT(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	f, v := fat(t, "16", 16<<20, map[string]string{"EFI/debian/grub.cfg": "text\n"})
	i, err := fill(t, f, v, map[string]string{"Über": "x"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int64{"efi/DEBIAN/Grub.cfg": 5, "EFI/debian/grub.cfg": 5, "über": 1} {
		if fi, err := i.StatFAT(v, name); err != nil || fi.Size() != size || fi.IsDir() {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
		if b, err := i.ReadFAT(v, name); err != nil || int64(len(b)) != size {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for _, name := range []string{"efi", "EFI/debian"} {
		if fi, err := i.StatFAT(v, name); err != nil || !fi.IsDir() {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
		if _, err := i.ReadFAT(v, name); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is read: %v", name, err)
		}
	}
	for _, name := range []string{"x", "EFI/x", "EFI/debian/grub.cfg/x"} {
		if _, err := i.StatFAT(v, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if fi, err := i.StatFAT(v, "."); err != nil || fi != nil {
		t.Errorf("its root: %v, %v", fi, err)
	}
}

// TestSealedPath: a path is followed through links and binds to the volume that a
// guest cannot see, and what leads elsewhere is the guest's.
func TestSealedPath(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"boot/efi", "etc", "mnt", "srv"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"efi": "boot/efi", "absolute": "/boot/efi", "boot/up": "../boot/./efi/EFI", "loop": "loop", "away": "/etc", "file": "boot/efi/x",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f := open(t, "/dev/null", os.O_RDONLY)
	l := disk.Layout{
		Volumes: []disk.Volume{{Slot: 1, FS: "vfat"}, {Slot: 2, FS: "ext4"}, {Slot: 3, FS: "vfat"}, {Slot: 4, FS: "vfat"}},
		Mounts: []disk.Mounted{
			{Mountpoint: "/", Slot: 2}, {Mountpoint: "/srv", Slot: 4, ByHand: true}, {Mountpoint: "/mnt", Bind: "/boot"},
			{Mountpoint: "/boot/efi", Slot: 1}, {Mountpoint: "/boot/efi/inner", Slot: 3},
		},
	}
	i, err := disk.OpenKnown(t.Context(), f, &l, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if len(i.Sealed()) == 0 {
		t.Skip("this kernel has vfat")
	}
	for name, want := range map[string]string{
		"/boot/efi": "1 .", "/boot/efi/EFI/x": "1 EFI/x", "/efi/x": "1 x", "/absolute/a/b": "1 a/b", "/boot/up/y": "1 EFI/y",
		"/boot/efi/inner/z": "3 z", "/mnt/efi/x": "1 x", "/boot/efix": "", "/boot": "", "/etc/x": "", "/srv/x": "", "/away/x": "",
		"/loop/x": "", "/file": "", "/": "",
	} {
		got := ""
		if p, ok := i.SealedPath(disk.TreeAt(root), name, false); ok {
			got = fmt.Sprint(p.Slot, " ", p.Name)
		}
		if got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if p, ok := i.SealedPath(disk.TreeAt(root), "/file", true); !ok || p.Name != "x" {
		t.Errorf("/file leads to %v, %t", p, ok)
	}
	places := slices.Collect(func(yield func(string) bool) {
		for _, m := range i.Sealed() {
			yield(m.Mountpoint)
		}
	})
	if want := []string{"/boot/efi", "/boot/efi/inner"}; !slices.Equal(places, want) {
		t.Errorf("sealed are %q, want %q", places, want)
	}
}
