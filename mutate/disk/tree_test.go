package disk_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/etc"
)

func TestReadOnlyChangesNoByte(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	for _, layout := range []string{"debian-12", "xfs", "btrfs"} {
		t.Run(layout, func(t *testing.T) {
			path := clone(t, layout)
			// Read-write, so that nothing but the access asked for protects it.
			f := open(t, path, os.O_RDWR)
			before := sum(t, f)
			v := volume(t, f, 2)
			tree := openTree(t, v, f, disk.ReadOnly)
			if _, err := tree.ReadFile("etc/fstab"); err != nil {
				t.Error(err)
			}
			if err := tree.Overwrite("etc/fstab", []byte("changed"), 0); !errors.Is(err, fs.ErrPermission) && err == nil {
				t.Error("Overwrite of a read-only volume succeeds")
			}
			if err := tree.Close(); err != nil {
				t.Error(err)
			}
			released(t, path)
			if sum(t, f) != before {
				t.Error("the image has changed")
			}
		})
	}
}

// sum is a digest of the file that holes cost nothing.
func sum(t *testing.T, f *os.File) string {
	t.Helper()
	s, err := content.Sum(t.Context(), f, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s.Digest()
}

func openTree(t *testing.T, v disk.Volume, f *os.File, access disk.Access) *disk.OpenTree {
	t.Helper()
	tree, err := v.Open(f, access)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

func TestReadOnlyLeavesDirtyJournal(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	path := clone(t, "two-roots")
	debugfs(t, path+firstRoot, "jo", "jw -b 333 /dev/zero", "jc")
	const dirty = "needs_recovery"
	if out := debugfs(t, path+firstRoot, "features"); !strings.Contains(out, dirty) {
		t.Fatalf("the journal is not dirty: %s", out)
	}
	before := fixtures.Digest(t, path)

	f := open(t, path, os.O_RDWR)
	v := volume(t, f, 1)
	tree := openTree(t, v, f, disk.ReadOnly)
	if b, err := tree.ReadFile("etc/os-release"); err != nil || !bytes.HasPrefix(b, []byte("ID=debian\n")) {
		t.Errorf("os-release is %q, %v", b, err)
	}
	tree.Close()
	released(t, path)
	if fixtures.Digest(t, path) != before {
		t.Error("the image has changed")
	}

	// The same journal is replayed where writing is asked for.
	openTree(t, v, f, disk.ReadWrite).Close()
	released(t, path)
	if out := debugfs(t, path+firstRoot, "features"); strings.Contains(out, dirty) {
		t.Error("a read-write mount has not replayed the journal")
	}
}

func TestLinksStayInside(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	path := clone(t, "two-roots")
	debugfs(t, path+firstRoot,
		"symlink climbs ../../../../../../../../usr/lib/os-release",
		"symlink absolute /usr/lib/os-release",
		"symlink outside "+outside,
		"symlink process /proc/self/environ",
		"symlink circle circle")
	f := open(t, path, os.O_RDONLY)
	tree := openTree(t, volume(t, f, 1), f, disk.ReadOnly)
	for _, name := range []string{"climbs", "absolute"} {
		if b, err := tree.ReadFile(name); err != nil || !bytes.Contains(b, []byte("bookworm")) {
			t.Errorf("ReadFile(%s) = %q, %v; want the image's own os-release", name, b, err)
		}
	}
	for _, name := range []string{"outside", "process", "circle"} {
		if b, err := tree.ReadFile(name); err == nil {
			t.Errorf("ReadFile(%s) = %q, want an error", name, b)
		}
		if _, err := tree.Stat(name); err == nil {
			t.Errorf("Stat(%s) succeeds", name)
		}
	}
	for name, want := range map[string]string{"absolute": "/usr/lib/os-release", "process": "/proc/self/environ", "circle": "circle"} {
		if target, err := tree.ReadLink(name); err != nil || target != want {
			t.Errorf("ReadLink(%s) = %q, %v", name, target, err)
		}
	}
	if target, err := tree.ReadLink("etc"); err == nil {
		t.Errorf("ReadLink of a directory = %q, want an error", target)
	}
	for _, name := range []string{"/etc/fstab", "../etc/fstab", "etc/../etc/fstab", ""} {
		if _, err := tree.ReadFile(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("ReadFile(%q): %v, want %v", name, err, fs.ErrInvalid)
		}
	}
}

// TestPipeDoesNotBlock: a pipe in an image is opened without waiting for
// somebody to write to it.
func TestPipeDoesNotBlock(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	path := clone(t, "two-roots")
	debugfs(t, path+firstRoot, "rm etc/fstab", "cd etc", "mknod fstab p")
	f := open(t, path, os.O_RDONLY)
	v := volume(t, f, 1)
	if text := etc.Read(openTree(t, v, f, disk.ReadOnly), "etc/fstab"); text != "" {
		t.Errorf("read %q of a pipe", text)
	}
}

func TestOverwriteKeepsOwnerAndMode(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	path := clone(t, "two-roots")
	debugfs(t, path+firstRoot, "sif usr/lib/os-release uid 123", "sif usr/lib/os-release gid 45",
		"sif usr/lib/os-release mode 0104751")
	f := open(t, path, os.O_RDWR)
	tree := openTree(t, volume(t, f, 1), f, disk.ReadWrite)
	long := strings.Repeat("long\n", 10000)
	for _, tc := range []struct {
		content string
		offset  int64
		want    string
	}{{long, 0, long}, {"short\n", 5, "long\nshort\n" + long[11:]}} {
		// Through a link, which must stay one.
		if err := tree.Overwrite("etc/os-release", []byte(tc.content), tc.offset); err != nil {
			t.Fatal(err)
		}
		if b, err := tree.ReadFile("usr/lib/os-release"); err != nil || string(b) != tc.want {
			t.Errorf("the file holds %d bytes %.20q, %v; want %d, %.20q", len(b), b, err, len(tc.want), tc.want)
		}
	}
	if err := tree.Overwrite("etc/missing", nil, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Overwrite of a missing file: %v", err)
	}
	if err := tree.Close(); err != nil {
		t.Error(err)
	}
	released(t, path)

	out := debugfs(t, path+firstRoot, "cat usr/lib/os-release", "stat usr/lib/os-release", "stat etc/os-release")
	for _, want := range []string{
		"short\n", "Mode:  04751", "User:   123   Group:    45", `Fast link dest: "../usr/lib/os-release"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("debugfs does not say %q:\n%s", want, out)
		}
	}
	fixtures.Program(t, "", "e2fsck", "-fn", path+firstRoot)
}

// TestOverwriteImmutable: chattr +i is meant for the system's own programs, and
// stays.
func TestOverwriteImmutable(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	path := clone(t, "two-roots")
	debugfs(t, path+firstRoot, "sif usr/lib/os-release flags 0x80030") // extents, immutable, append-only
	f := open(t, path, os.O_RDWR)
	tree := openTree(t, volume(t, f, 1), f, disk.ReadWrite)
	if err := tree.Overwrite("etc/os-release", []byte("ID=new\n"), 0); err != nil {
		t.Fatal(err)
	}
	if err := tree.Close(); err != nil {
		t.Error(err)
	}
	released(t, path)
	out := debugfs(t, path+firstRoot, "cat usr/lib/os-release", "stat usr/lib/os-release")
	for _, want := range []string{"ID=new\n", "Flags: 0x80030"} {
		if !strings.Contains(out, want) {
			t.Errorf("debugfs does not say %q:\n%s", want, out)
		}
	}
	fixtures.Program(t, "", "e2fsck", "-fn", path+firstRoot)
}

func TestNothingIsLeft(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	path := clone(t, "two-roots")
	mounts := func() string {
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := mounts()
	f := open(t, path, os.O_RDWR)
	for _, access := range []disk.Access{disk.ReadOnly, disk.ReadWrite} {
		tree := openTree(t, volume(t, f, 1), f, access)
		if mounts() != before {
			t.Error("the mount is in the namespace")
		}
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
		released(t, path)
	}
	// What is no filesystem leaves nothing either.
	v := volume(t, f, 1)
	v.FS = "xfs"
	if _, err := v.Open(f, disk.ReadOnly); err == nil || !strings.Contains(err.Error(), "mount partition 1 (xfs): ") {
		t.Errorf("Open of an ext4 as XFS: %v", err)
	}
	released(t, path)
}

// TestFAT reads what mtools wrote, as each of the three FATs.
func TestFAT(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	large := strings.Repeat("0123456789abcde\n", 20000)
	for _, kind := range []struct {
		bits string
		size int64
	}{{"12", 2 << 20}, {"16", 16 << 20}, {"32", 64 << 20}} {
		t.Run(kind.bits, func(t *testing.T) {
			f, v := fat(t, kind.bits, kind.size, map[string]string{
				"loader/loader.conf": "timeout 0\n", "loader/entries/debian.conf": "title x\n", "empty.txt": "",
				"A Long Name.efi": "MZ", "large": large, "none/": "",
			})
			tree := openTree(t, v, f, disk.ReadOnly)
			for name, want := range map[string]string{
				"loader/loader.conf": "timeout 0\n", "loader/entries/debian.conf": "title x\n", "empty.txt": "",
				"A Long Name.efi": "MZ", "large": large,
			} {
				if b, err := tree.ReadFile(name); err != nil || string(b) != want {
					t.Errorf("ReadFile(%s) = %d bytes, %v; want %d bytes", name, len(b), err, len(want))
				}
				if fi, err := tree.Stat(name); err != nil || fi.Size() != int64(len(want)) || fi.IsDir() {
					t.Errorf("Stat(%s) = %v, %v", name, fi, err)
				}
			}
			if list, err := tree.ReadDir("none"); err != nil || len(list) > 0 {
				t.Errorf("an empty directory holds %v, %v", list, err)
			}
			if found, err := fs.Glob(tree, "loader/entries/*.conf"); err != nil || len(found) != 1 {
				t.Errorf("Glob = %v, %v", found, err)
			}
			for dir, want := range map[string]string{
				".": "A Long Name.efi empty.txt large loader none", "loader/entries": "debian.conf", "none": "",
			} {
				if names, err := etc.ReadDir(tree, dir, 5); err != nil || strings.Join(names, " ") != want {
					t.Errorf("etc.ReadDir(%s) = %q, %v, want %q", dir, names, err, want)
				}
			}
			if text := etc.Read(tree, "large"); text != large {
				t.Errorf("etc.Read = %d bytes, want %d", len(text), len(large))
			}
			if _, err := tree.ReadFile("missing"); err == nil {
				t.Error("a missing file can be read")
			}
			if err := tree.Overwrite("empty.txt", nil, 0); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("Overwrite: %v, want %v", err, fs.ErrPermission)
			}
		})
	}
}

// fat makes a FAT with those files behind another partition's place. A name
// that ends in a slash is an empty directory.
func fat(t *testing.T, bits string, size int64, files map[string]string, options ...string) (*os.File, disk.Volume) {
	t.Helper()
	dir := t.TempDir()
	fat, src := filepath.Join(dir, "fat"), filepath.Join(dir, "src")
	truncate(t, fat, size)
	fixtures.Program(t, "", "mkfs.vfat", append([]string{"-F", bits, fat}, options...)...)
	for name, content := range files {
		path := filepath.Join(src, name)
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := filepath.Glob(src + "/*")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) > 0 {
		fixtures.Program(t, "", "mcopy", append(append([]string{"-s", "-i", fat}, entries...), "::")...)
	}
	b, err := os.ReadFile(fat)
	if err != nil {
		t.Fatal(err)
	}
	const offset = 1 << 20
	image := filepath.Join(dir, "image.raw")
	if err := os.WriteFile(image, append(make([]byte, offset), b...), 0o644); err != nil {
		t.Fatal(err)
	}
	return open(t, image, os.O_RDWR), disk.Volume{Slot: 1, Offset: offset, Size: size, FS: "vfat"}
}

// TestFATOfFixture: the ESP of a real image, as mtools reads it.
func TestFATOfFixture(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	path := fixtures.Image(t, "debian-12")
	f := open(t, path, os.O_RDONLY)
	tree := openTree(t, volume(t, f, 1), f, disk.ReadOnly)
	const name = "loader/entries/debian.conf"
	want := fixtures.Program(t, "", "mtype", "-i", path+"@@1M", "::"+name)
	if b, err := tree.ReadFile(name); err != nil || string(b) != want {
		t.Errorf("ReadFile(%s) = %q, %v; mtype says %q", name, b, err, want)
	}
}

// TestDamagedFAT: reading a damaged FAT ends always, with or without an error,
// and never by a panic.
func TestDamagedFAT(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	for _, bits := range []string{"12", "16", "32"} {
		size := map[string]int64{"12": 2 << 20, "16": 16 << 20, "32": 64 << 20}[bits]
		f, v := fat(t, bits, size, map[string]string{"dir/file": strings.Repeat("x", 100000), "empty": ""})
		head := make([]byte, 2<<20)
		if _, err := f.ReadAt(head, v.Offset); err != nil {
			t.Fatal(err)
		}
		for seed := range 40 {
			damaged := bytes.Clone(head)
			r := rand.New(rand.NewPCG(uint64(seed), 0))
			// The first sectors hold the parameters, the table and the root.
			for range 1 + r.IntN(200) {
				at := r.IntN(64 << 10)
				if seed%2 == 0 {
					at = r.IntN(1 << 10)
				}
				damaged[at] = byte(r.Uint32())
			}
			if _, err := f.WriteAt(damaged, v.Offset); err != nil {
				t.Fatal(err)
			}
			ended := make(chan any, 1)
			go func() {
				defer func() { ended <- recover() }()
				tree, err := v.Open(f, disk.ReadOnly)
				if err != nil {
					return
				}
				tree.ReadDir(".")
				tree.Stat("dir/file")
				tree.ReadFile("dir/file")
				fs.Glob(tree, "*/*/*")
			}()
			select {
			case r := <-ended:
				if r != nil {
					t.Errorf("FAT%s, seed %d: panic: %v", bits, seed, r)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("FAT%s, seed %d: does not end", bits, seed)
			}
		}
	}
}
