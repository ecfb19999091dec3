package verify_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/verify"
)

func open(t *testing.T, path string) *os.File {
	t.Helper()
	// Writable, so that only what verify does keeps it from being written.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func sum(t *testing.T, f *os.File) string {
	t.Helper()
	s, err := content.Sum(t.Context(), f, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s.Digest()
}

// judge verifies an image, and that this changes no byte of it and leaves
// nothing in the scratch directory.
func judge(t *testing.T, path string, r verify.Request) (*record.Verdict, error) {
	t.Helper()
	f := open(t, path)
	before := sum(t, f)
	i, err := disk.Open(t.Context(), f, func(text string) { t.Errorf("note: %s", text) })
	if err != nil {
		return nil, err
	}
	r.Image, r.Scratch = i, t.TempDir()
	v, err := verify.Image(t.Context(), r)
	if err := i.Close(); err != nil {
		t.Error(err)
	}
	if sum(t, f) != before {
		t.Error("the image has changed")
	}
	if left, err := os.ReadDir(r.Scratch); err != nil || len(left) > 0 {
		t.Errorf("in the scratch directory: %v, %v", left, err)
	}
	return v, err
}

// small makes an image with one root and a FAT: two-roots, the second of which
// makes room.
func small(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.raw")
	fixtures.Clone(t, fixtures.Image(t, "two-roots"), path)
	debugfs(t, path, "cd usr/bin", "write /bin/sh sh", "cd ../sbin", "write /bin/sh init")
	fat := filepath.Join(t.TempDir(), "fat")
	if err := os.WriteFile(fat, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(fat, 64<<20); err != nil {
		t.Fatal(err)
	}
	fixtures.Program(t, "", "mkfs.vfat", "-F", "32", "-i", "1A2B3C4D", fat)
	fixtures.Program(t, "file\n", "mcopy", "-i", fat, "-", "::file.txt")
	fixtures.Program(t, "", "dd", "if="+fat, "of="+path, "bs=1M", "seek=65", "conv=notrunc", "status=none")
	fixtures.Program(t, "", "sfdisk", "--quiet", "--part-type", path, "2", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
	return path
}

// debugfs changes the root of a small image without the kernel.
func debugfs(t *testing.T, path string, commands ...string) {
	t.Helper()
	out := fixtures.Program(t, strings.Join(commands, "\n")+"\n", "debugfs", "-w", "-f", "-", path+"?offset=1048576")
	for _, fault := range []string{"not found", "Unknown", "while ", "Usage", "Invalid"} {
		if strings.Contains(out, fault) {
			t.Fatalf("debugfs: %s", out)
		}
	}
}

// overwrite puts bytes into an image.
func overwrite(t *testing.T, path string, at int64, b []byte) {
	t.Helper()
	f := open(t, path)
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func fstab(text string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "fstab")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		debugfs(t, path, "rm etc/fstab", "write "+file+" etc/fstab")
	}
}

// units gives the image a mount unit, which local-fs.target pulls in.
func units(what, by string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		dir := t.TempDir()
		for name, text := range map[string]string{"target": "[Unit]\n", "mount": "[Mount]\nWhat=" + what + "\nWhere=/data\nType=xfs\n"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		links := "etc/systemd/system/local-fs.target." + by
		debugfs(t, path, "mkdir "+links,
			"write "+dir+"/target etc/systemd/system/default.target", "write "+dir+"/target etc/systemd/system/local-fs.target",
			"write "+dir+"/mount etc/systemd/system/data.mount", "symlink "+links+"/data.mount ../data.mount")
	}
}

const rootUUID = "5173b296-a04e-4fc2-9365-4e90c71b2a05"

func TestImage(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, path string)
		failed string // the checks that fail
		detail string
	}{
		{"good", nil, "", ""},
		{"references that are there", fstab("UUID=" + rootUUID + " / ext4\nUUID=1A2B-3C4D /boot/efi vfat\n"), "", ""},
		{"nofail and noauto", fstab("LABEL=gone /a ext4 nofail\nUUID=1111-2222 /b vfat defaults,noauto 0 0\n"), "", ""},
		{"dangling reference", fstab("UUID=" + rootUUID + " / ext4\nUUID=1111-2222 /b vfat\nLABEL=gone /c ext4\n"),
			"references",
			"/etc/fstab names UUID=1111-2222, which no volume of the image has; " +
				"/etc/fstab names LABEL=gone, which no volume of the image has"},
		{"another filesystem than there is", fstab("UUID=" + rootUUID + " / xfs\n\nUUID=1A2B-3C4D /boot/efi ext4,xfs\n"), "references",
			"/etc/fstab:3 mounts partition 2 on /boot/efi as ext4,xfs, and that holds vfat"},
		{"another that is not needed", fstab("UUID=1A2B-3C4D /boot/efi ext4 nofail\nUUID=1A2B-3C4D /b xfs noauto\n"), "", ""},
		{"a filesystem by another name", fstab("UUID=1A2B-3C4D /boot/efi msdos\nUUID=1A2B-3C4D /a auto\nUUID=1A2B-3C4D /b ext4,vfat\n"), "", ""},
		{"a mount unit that is required", units("UUID=1111-2222", "requires"), "references",
			"/etc/systemd/system/data.mount names UUID=1111-2222, which no volume of the image has, and the system needs it to start"},
		{"a required unit of another filesystem", units("/dev/disk/by-uuid/1A2B-3C4D", "requires"), "references",
			"/etc/systemd/system/data.mount mounts partition 2 on /data as xfs, and that holds vfat"},
		{"a mount unit that is wanted", units("UUID=1111-2222", "wants"), "", ""},
		{"damaged block bitmap", func(t *testing.T, path string) { debugfs(t, path, "freeb 3000 500") },
			"partition 1: ext4", ""},
		{"damaged inode", func(t *testing.T, path string) { debugfs(t, path, "sif etc links_count 40") },
			"partition 1: ext4", ""},
		{"journal to replay", func(t *testing.T, path string) { debugfs(t, path, "jo", "jw -b 333 /dev/zero", "jc") },
			"", ""},
		{"damaged FAT", func(t *testing.T, path string) {
			// The entries of the first copy of the table, which begins after 32 reserved sectors.
			overwrite(t, path, 65<<20+32*512+8, []byte{0x77, 0x66, 0x55, 0x04, 0x77, 0x66, 0x55, 0x04})
		}, "partition 2: vfat, references", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := small(t)
			if tc.change != nil {
				tc.change(t, path)
			}
			v, err := judge(t, path, verify.Request{})
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, c := range v.Checks {
				names = append(names, c.Name)
			}
			const want = "partition table: gpt, partition 1: ext4, partition 2: vfat, references, boot chain, shared identity, first boot"
			if got := strings.Join(names, ", "); got != want {
				t.Errorf("checks %s, want %s", got, want)
			}
			var failed []string
			for _, c := range v.Failed() {
				failed = append(failed, c.Name)
			}
			if got := strings.Join(failed, ", "); got != tc.failed || v.OK != (got == "") {
				t.Errorf("OK is %t and %q fails, want %q: %+v", v.OK, got, tc.failed, v.Failed())
			}
			for _, c := range v.Checks {
				if !c.OK && (c.Detail == "" || !strings.Contains(c.Detail, tc.detail)) {
					t.Errorf("detail %q, want %q", c.Detail, tc.detail)
				}
			}
		})
	}
}

// TestWhatTheBaseHad: a filesystem is no worse than the base's, or the image is wrong.
func TestWhatTheBaseHad(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	nothing := func(*testing.T, string) {}
	dirty := func(t *testing.T, path string) { overwrite(t, path, 65<<20+65, []byte{1}) }
	bitmap := func(t *testing.T, path string) { debugfs(t, path, "freeb 3000 500") }
	const fat, ext = "partition 2: vfat", "partition 1: ext4"
	for _, tc := range []struct {
		name        string
		base, since func(t *testing.T, path string)
		note        string // which check has one
		failed      string
	}{
		{"sound", nothing, nothing, "", ""},
		{"dirty FAT", dirty, nothing, fat, ""},
		{"dirty FAT, and more", dirty, func(t *testing.T, path string) {
			overwrite(t, path, 65<<20+32*512+4*40, []byte{0x29, 0, 0, 0, 0xff, 0xff, 0xff, 0x0f}) // a chain of no file
		}, "", fat},
		{"dirty FAT since", nothing, dirty, "", fat},
		{"damage", bitmap, nothing, ext, ""},
		{"damage, and more", bitmap, func(t *testing.T, path string) { debugfs(t, path, "sif etc links_count 40") }, "", ext},
		{"damage since", nothing, bitmap, "", ext},
		{"one was mended", func(t *testing.T, path string) { bitmap(t, path); dirty(t, path) },
			func(t *testing.T, path string) { overwrite(t, path, 65<<20+65, []byte{0}) }, ext, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := small(t)
			tc.base(t, base)
			path := filepath.Join(t.TempDir(), "image.raw")
			fixtures.Clone(t, base, path)
			tc.since(t, path)
			v, err := judge(t, path, verify.Request{Base: &verify.Base{File: open(t, base)}})
			if err != nil {
				t.Fatal(err)
			}
			var noted, failed []string
			for _, c := range v.Checks {
				if strings.Contains(strings.Join(c.Notes, " "), "says: ") && strings.HasSuffix(c.Notes[0], "(as in the base)") {
					noted = append(noted, c.Name)
				}
			}
			for _, c := range v.Failed() {
				failed = append(failed, c.Name)
			}
			if strings.Join(noted, ", ") != tc.note || strings.Join(failed, ", ") != tc.failed {
				t.Errorf("notes of %q, %q failed; want %q and %q: %+v", noted, failed, tc.note, tc.failed, v.Checks)
			}
			told := &verify.Base{}
			for _, c := range v.Checks {
				told.Told = append(told.Told, c.Notes...)
			}
			if v, err := judge(t, path, verify.Request{Base: told}); err != nil || v.OK != (tc.failed == "") {
				t.Errorf("when the base is gone: %+v, %v", v, err)
			}
			if v, err := judge(t, path, verify.Request{}); err != nil || v.OK != (tc.note == "" && tc.failed == "") {
				t.Errorf("without a base: %+v, %v", v, err)
			}
		})
	}
}

// TestFixtures: whole systems of each filesystem are good.
func TestFixtures(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	for _, layout := range []string{"bib", "xfs", "btrfs"} {
		t.Run(layout, func(t *testing.T) {
			v, err := judge(t, fixtures.Image(t, layout), verify.Request{})
			if err != nil || !v.OK {
				t.Errorf("Image = %+v, %v", v, err)
			}
		})
	}
}

// TestImageUnusable: what cannot be judged as an image is an error, not a verdict.
func TestImageUnusable(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, path string)
	}{
		{"main partition table", func(t *testing.T, path string) { overwrite(t, path, 1024, []byte("damage")) }},
		{"backup partition table", func(t *testing.T, path string) { overwrite(t, path, 130<<20-512, []byte("damage")) }},
		{"no root", func(t *testing.T, path string) { debugfs(t, path, "rm etc/os-release", "rm usr/lib/os-release") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := small(t)
			tc.change(t, path)
			v, err := judge(t, path, verify.Request{})
			if fault.Of(err) != fault.Image {
				t.Errorf("Image = %+v, %v; want an error about the image", v, err)
			}
		})
	}
}

func TestImageCancelled(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	i, err := disk.Open(t.Context(), open(t, fixtures.Image(t, "two-roots")), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if v, err := verify.Image(ctx, verify.Request{Image: i, Scratch: t.TempDir()}); err == nil {
		t.Errorf("Image = %+v", v)
	}
}
