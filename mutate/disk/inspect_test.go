package disk_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
)

// What fixtures/image.sh gives its filesystems.
const (
	rootUUID = "5173b296-a04e-4fc2-9365-4e90c71b2a05"
	bootUUID = "6284c3a7-b15f-40d3-a476-5fa1d82c3b06"
)

func efi(fs string) []disk.Volume {
	return []disk.Volume{
		{Role: disk.ESP, Mountpoint: "/boot/efi", FS: "vfat", UUID: "1A2B-3C4D", Label: "ESP"},
		{Role: disk.Root, Mountpoint: "/", FS: fs, UUID: rootUUID, Label: "root"},
	}
}

func TestInspect(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	efiMounts := []disk.Mounted{{Mountpoint: "/", Slot: 2}, {Mountpoint: "/boot/efi", Slot: 1, Options: []string{"umask=0077"}}}
	mounts := map[string][]disk.Mounted{
		"debian-12": efiMounts, "xfs": efiMounts, "btrfs": efiMounts,
		"bib": {{Mountpoint: "/", Slot: 4}, {Mountpoint: "/boot", Slot: 3},
			{Mountpoint: "/boot/efi", Slot: 2, Options: []string{"umask=0077", "shortname=winnt"}}},
		"mbr": {{Mountpoint: "/", Slot: 1}}, "bare": {{Mountpoint: "/"}},
	}
	arch := map[string]string{"amd64": "x86-64", "arm64": "arm64"}[runtime.GOARCH]
	root := disk.Volume{Role: disk.Root, Mountpoint: "/", FS: "ext4", UUID: rootUUID, Label: "root"}
	for _, tc := range []struct {
		layout  string
		table   disk.TableKind
		volumes []disk.Volume // what is in each; sfdisk says where it is
	}{
		{"debian-12", disk.GPT, efi("ext4")},
		{"xfs", disk.GPT, efi("xfs")},
		{"btrfs", disk.GPT, efi("btrfs")},
		{"bib", disk.GPT, []disk.Volume{
			{},
			{Role: disk.ESP, Mountpoint: "/boot/efi", FS: "vfat", UUID: "7B77-95E7", Label: "ESP"},
			{Role: disk.Boot, Mountpoint: "/boot", FS: "ext4", UUID: bootUUID, Label: "boot"},
			root,
		}},
		{"mbr", disk.MBR, []disk.Volume{root}},
		{"bare", disk.Bare, []disk.Volume{root}},
	} {
		t.Run(tc.layout, func(t *testing.T) {
			path := fixtures.Image(t, tc.layout)
			f := open(t, path, os.O_RDONLY)
			got, err := inspect(t, f)
			if err != nil {
				t.Fatal(err)
			}
			want := &disk.Layout{Table: tc.table, Arch: arch, OS: "debian 12", Volumes: tc.volumes, Mounts: mounts[tc.layout]}
			if tc.table == disk.Bare {
				want.Volumes[0].Size = size(t, f)
			} else {
				placed(t, path, want.Volumes)
			}
			for n := range got.Mounts {
				if !strings.HasPrefix(got.Mounts[n].From, "/etc/fstab") {
					t.Errorf("%s is mounted because of %q", got.Mounts[n].Mountpoint, got.Mounts[n].From)
				}
				got.Mounts[n].From = ""
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Inspect (-want +got):\n%s", diff)
			}
			released(t, path)
		})
	}
}

// subvolumes makes a btrfs with subvolumes, each with a small system.
func subvolumes(t *testing.T, path string, names ...string) {
	t.Helper()
	const script = `mkfs.btrfs -q "$1"; mkdir "$2"; mount -o loop "$1" "$2"; cd "$2"; shift 2
for name; do
	btrfs -q subvolume create "$name"
	mkdir -p "$name/etc" "$name/usr/lib" "$name/bin"
	echo ID=test > "$name/usr/lib/os-release"; head -c 64 /bin/true > "$name/bin/sh"; : > "$name/etc/fstab"
done`
	args := []string{"--mount", "--propagation", "private", "sh", "-euc", script, "sh", path, filepath.Join(t.TempDir(), "mnt")}
	fixtures.Program(t, "", "unshare", append(args, names...)...)
	released(t, path)
}

// TestRootInASubvolume: where the default of a btrfs holds no system, the one
// subvolume that does is root.
func TestRootInASubvolume(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	path := filepath.Join(t.TempDir(), "image.raw")
	truncate(t, path, 128<<20)
	subvolumes(t, path, "root")
	l, err := inspect(t, open(t, path, os.O_RDONLY))
	if err != nil {
		t.Fatal(err)
	}
	want := []disk.Mounted{{Mountpoint: "/", Options: []string{"subvol=root"}, From: "the subvolume root"}}
	if diff := cmp.Diff(want, l.Mounts); diff != "" || l.OS != "test" {
		t.Errorf("%s; mounts (-want +got):\n%s", l.OS, diff)
	}
}

func size(t *testing.T, f *os.File) int64 {
	t.Helper()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return fi.Size()
}

// placed fills in what sfdisk says of each partition.
func placed(t *testing.T, path string, volumes []disk.Volume) {
	t.Helper()
	var s struct {
		PartitionTable struct {
			Label, ID  string
			Partitions []struct {
				Start, Size      int64
				Type, UUID, Name string
			}
		}
	}
	if err := json.Unmarshal([]byte(fixtures.Program(t, "", "sfdisk", "--json", path)), &s); err != nil {
		t.Fatal(err)
	}
	if n := len(s.PartitionTable.Partitions); n != len(volumes) {
		t.Fatalf("sfdisk sees %d partitions, not %d", n, len(volumes))
	}
	for i, p := range s.PartitionTable.Partitions {
		v := &volumes[i]
		v.Slot, v.Offset, v.Size = i+1, p.Start*512, p.Size*512
		v.Type, v.PartUUID, v.PartLabel = strings.ToLower(p.Type), strings.ToLower(p.UUID), p.Name
		if s.PartitionTable.Label == "dos" {
			v.Type, v.PartUUID = "0x"+p.Type, strings.TrimPrefix(s.PartitionTable.ID, "0x")+"-01"
		}
	}
}

func TestInspectTwoRoots(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	_, err := inspect(t, open(t, fixtures.Image(t, "two-roots"), os.O_RDONLY))
	if fault.Of(err) != fault.Image || !strings.Contains(err.Error(), "partition 1") ||
		!strings.Contains(err.Error(), "partition 2") {
		t.Errorf("Inspect: %v, want an error about the image that names both partitions", err)
	}
}

func TestInspectTypedRoot(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	const x86, arm = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "b921b045-1df0-41c3-af44-4c6f280d3fae"
	for _, tc := range []struct{ slot, guid string }{{"1", x86}, {"2", x86}, {"2", arm}} {
		t.Run(tc.slot+" "+tc.guid, func(t *testing.T) {
			path := clone(t, "two-roots")
			fixtures.Program(t, "", "sfdisk", "--quiet", "--part-type", path, tc.slot, tc.guid)
			for _, fs := range []string{firstRoot, secondRoot} {
				debugfs(t, path+fs, "cd usr/bin", "write /bin/sh sh")
			}
			l, err := inspect(t, open(t, path, os.O_RDONLY))
			if err != nil {
				t.Fatal(err)
			}
			if v, ok := l.Find(disk.Root); !ok || v.String() != "partition "+tc.slot {
				t.Errorf("root is %s, want partition %s", v, tc.slot)
			}
		})
	}
	t.Run("both", func(t *testing.T) {
		path := clone(t, "two-roots")
		for _, slot := range []string{"1", "2"} {
			fixtures.Program(t, "", "sfdisk", "--quiet", "--part-type", path, slot, x86)
		}
		if _, err := inspect(t, open(t, path, os.O_RDONLY)); fault.Of(err) != fault.Image {
			t.Errorf("Inspect: %v, want an error about the image", err)
		}
	})
}

// TestInspectInvalid: what imgmut cannot work on is told apart from what went wrong.
func TestInspectInvalid(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	for _, tc := range []struct {
		name string
		make func(t *testing.T, path string)
		want string
		mend string // a part of it
	}{
		{"empty", func(t *testing.T, path string) { truncate(t, path, 0) }, "the image is empty", "downloaded"},
		{"zeros", func(t *testing.T, path string) { truncate(t, path, 1<<20) }, "no partition table and no filesystem",
			"with an operating system"},
		{"no operating system", func(t *testing.T, path string) {
			truncate(t, path, 16<<20)
			fixtures.Program(t, "", "mkfs.ext4", "-q", "-F", path)
		}, "no filesystem that holds an operating system", "with an operating system"},
		{"encrypted", func(t *testing.T, path string) {
			b := make([]byte, 4096)
			copy(b, "LUKS\xba\xbe\x00\x01")
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
			truncate(t, path, 16<<20)
		}, "LUKS", "imgmut works on a root of"},
		{"a damaged filesystem", func(t *testing.T, path string) {
			truncate(t, path, 16<<20)
			fixtures.Program(t, "", "mkfs.ext4", "-q", "-F", "-b", "4096", path)
			clobber(t, path, 4096, 4096) // the places of all other metadata
		}, "the image has no usable root: mount", "e2fsck"},
		{"a filesystem with a wrong checksum", func(t *testing.T, path string) {
			truncate(t, path, 320<<20)
			fixtures.Program(t, "", "mkfs.xfs", "-q", path)
			clobber(t, path, 512, 2048) // AGF, AGI and AGFL of the first group
		}, "the image has no usable root: mount", "xfs_repair"},
		{"truncated", func(t *testing.T, path string) {
			fixtures.Clone(t, fixtures.Image(t, "two-roots"), path)
			truncate(t, path, 20<<20)
		}, "", ""},
		{"no program", func(t *testing.T, path string) {
			fixtures.Clone(t, fixtures.Image(t, "two-roots"), path)
			fixtures.Program(t, "", "sfdisk", "--quiet", "--delete", path, "2")
		}, "no program that tells its architecture", "whole"},
		{"two subvolumes with a system", func(t *testing.T, path string) {
			truncate(t, path, 128<<20)
			subvolumes(t, path, "a", "b")
		}, "the filesystem has 2 subvolumes that each hold an operating system: subvol=a and subvol=b", "set-default"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := t.TempDir() + "/image.raw"
			tc.make(t, path)
			_, err := inspect(t, open(t, path, os.O_RDONLY))
			if fault.Of(err) != fault.Image || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Inspect: %v, want an error about the image with %q", err, tc.want)
			}
			if mend := fault.Mend(err); !strings.Contains(mend, tc.mend) {
				t.Errorf("the mend is %q, want one with %q", mend, tc.mend)
			}
			released(t, path)
		})
	}
}

// clobber overwrites bytes of a file.
func clobber(t *testing.T, path string, at int64, length int) {
	t.Helper()
	if _, err := open(t, path, os.O_RDWR).WriteAt(bytes.Repeat([]byte{0xa5}, length), at); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
}
