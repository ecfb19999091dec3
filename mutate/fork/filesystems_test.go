package fork

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/reflink"
)

// manyFilesystems makes an image with each filesystem that can get another UUID, in
// a place between two blocks of its own. Its fstab names all of them.
func manyFilesystems(t *testing.T, dir string) string {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	img, tree := filepath.Join(dir, "disk.raw"), t.TempDir()
	writeFile(t, img, "")
	if err := os.Truncate(img, 640<<20); err != nil {
		t.Fatal(err)
	}
	program(t, "label: gpt\nstart=2049, size=32MiB\nsize=320MiB\nsize=128MiB\nsize=34MiB, type=U\nsize=8MiB, type=S\n",
		"sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", img)
	fstab := ""
	for _, v := range []struct{ uuid, line string }{
		{"10000000-0000-4000-8000-00000000000a", "/ ext4"}, {"20000000-0000-4000-8000-00000000000a", "/srv xfs"},
		{"30000000-0000-4000-8000-00000000000a", "/home btrfs"}, {"4A4B-4C4D", "/boot/efi vfat"},
		{"50000000-0000-4000-8000-00000000000a", "none swap"},
	} {
		fstab += "UUID=" + v.uuid + " " + v.line + " defaults 0 0\n"
	}
	for name, text := range map[string]string{"etc/os-release": "ID=test\n", "etc/fstab": fstab, "bin/sh": machine,
		"etc/default/grub": "root=LABEL=r ro\n", "boot/efi/x": "", "srv/x": "", "home/x": ""} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(tree, name), text)
	}
	for n, mkfs := range []string{
		"mke2fs -q -t ext4 -L r -U 10000000-0000-4000-8000-00000000000a -d " + tree,
		"mkfs.xfs -q -L x -m uuid=20000000-0000-4000-8000-00000000000a",
		"mkfs.btrfs -q -L b -U 30000000-0000-4000-8000-00000000000a",
		"mkfs.vfat -F 32 -n E -i 4A4B4C4D",
		"mkswap -q -L s -U 50000000-0000-4000-8000-00000000000a",
	} {
		v := layoutOf(t, img).Volumes[n]
		file, words := filepath.Join(dir, "volume"), strings.Fields(mkfs)
		writeFile(t, file, "")
		if err := os.Truncate(file, v.Size); err != nil {
			t.Fatal(err)
		}
		program(t, "", words[0], append(words[1:], file)...)
		if words[0] == "mkfs.vfat" {
			program(t, "search.fs_uuid 10000000-0000-4000-8000-00000000000a root\n", "mcopy", "-i", file, "-", "::/grub.cfg")
		}
		program(t, "", "dd", "if="+file, "of="+img, "bs=1M", "conv=notrunc,sparse", "oflag=seek_bytes", "seek="+strconv.FormatInt(v.Offset, 10))
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// TestIdentifyFilesystems gives every filesystem another UUID and label, by its own
// authors' program, and has each checked by theirs. Two images of one base differ.
func TestIdentifyFilesystems(t *testing.T) {
	for name, dir := range map[string]string{"blocks that are copied": t.TempDir(), "blocks that are shared": fixtures.ReflinkDir(t)} {
		t.Run(name, func(t *testing.T) {
			base := manyFilesystems(t, dir)
			layout := layoutOf(t, base)
			fstabs := map[string]bool{}
			for _, image := range []string{"web", "db"} {
				wanted := Wanted{Filesystems: true, Labels: "{label}-{name}", KeepTypes: true}
				if refused, err := wanted.Check(layout, image); len(refused) > 0 || err != nil {
					t.Fatal(refused, err)
				}
				work := filepath.Join(dir, image+".raw")
				clone(t, base, work)
				id := wanted.Derive(layout, "key", image)
				identifyFile(t, work, base, layout, id)
				is := layoutOf(t, work)
				for n, v := range is.Volumes {
					was := layout.Volumes[n]
					if v.UUID != id.Filesystems[strings.ToLower(was.UUID)] || v.UUID == was.UUID || v.Type != was.Type {
						t.Errorf("%s has UUID %s, was %s, and is to have %s", v, v.UUID, was.UUID, id.Filesystems[was.UUID])
					}
					if v.Label != id.Labels[was.Label] || v.Label == was.Label {
						t.Errorf("%s has label %s, was %s, and is to have %s", v, v.Label, was.Label, id.Labels[was.Label])
					}
					checkVolume(t, work, dir, v)
				}
				fstabs[checkNames(t, work, is)] = true
			}
			if len(fstabs) != 2 {
				t.Error("both images have the same names")
			}
		})
	}
}

func clone(t *testing.T, from, to string) {
	t.Helper()
	if err := reflink.CloneFile(to, from, 0o600); errors.Is(err, reflink.ErrUnsupported) {
		os.Remove(to)
		program(t, "", "cp", "--sparse=always", from, to)
	} else if err != nil {
		t.Fatal(err)
	}
}

// carved is a file of a volume.
func carved(t *testing.T, img, dir string, v disk.Volume) string {
	t.Helper()
	file := filepath.Join(dir, "volume")
	program(t, "", "dd", "if="+img, "of="+file, "bs=1M", "conv=sparse", "iflag=skip_bytes,count_bytes",
		fmt.Sprint("skip=", v.Offset), fmt.Sprint("count=", v.Size))
	if err := os.Truncate(file, v.Size); err != nil {
		t.Fatal(err)
	}
	return file
}

// checkVolume has a filesystem checked by the program of its authors.
func checkVolume(t *testing.T, img, dir string, v disk.Volume) {
	t.Helper()
	file := carved(t, img, dir, v)
	defer os.Remove(file)
	check := map[string]string{"ext2": "e2fsck -fn", "ext3": "e2fsck -fn", "ext4": "e2fsck -fn",
		"xfs": "xfs_repair -n -f", "btrfs": "btrfs check --readonly", "vfat": "fsck.vfat -n", "swap": "swaplabel"}[v.FS]
	words := strings.Fields(check)
	program(t, "", words[0], append(words[1:], file)...)
	switch v.FS {
	case "ext4":
		if out := program(t, "", "tune2fs", "-l", file); !strings.Contains(out, v.UUID) {
			t.Errorf("tune2fs does not find %s: %s", v.UUID, out)
		}
	case "xfs":
		if out := program(t, "", "xfs_admin", "-f", "-u", file); !strings.Contains(out, v.UUID) {
			t.Errorf("xfs_admin does not find %s: %s", v.UUID, out)
		}
	}
}

// checkNames says whether the files name the filesystems that are there, and gives
// the fstab.
func checkNames(t *testing.T, img string, l *disk.Layout) string {
	t.Helper()
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	i, err := disk.Open(t.Context(), f, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	trees, unreadable, err := i.Trees()
	if err != nil || len(unreadable) > 0 {
		t.Fatal(err, unreadable)
	}
	fstab, err := trees[0].ReadFile("etc/fstab")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := trees[0].ReadFile("etc/default/grub"); string(b) != "root=LABEL="+l.Volumes[0].Label+" ro\n" || err != nil {
		t.Errorf("the label is followed to %q: %v", b, err)
	}
	var named []string
	for _, m := range regexp.MustCompile(`UUID=(\S+)`).FindAllStringSubmatch(string(fstab), -1) {
		named = append(named, m[1])
	}
	var want []string
	for _, v := range l.Volumes {
		want = append(want, v.UUID)
	}
	if diff := cmp.Diff(want, named); diff != "" {
		t.Errorf("fstab names (-want +got):\n%s", diff)
	}
	for _, tree := range trees {
		if tree.Volume.FS != "vfat" {
			continue
		}
		b, err := tree.ReadFile("grub.cfg")
		if want := "search.fs_uuid " + want[0] + " root\n"; string(b) != want || err != nil {
			t.Errorf("grub.cfg on the ESP says %q, want %q: %v", b, want, err)
		}
	}
	return string(fstab)
}

// TestCompare: what blkid reads is what was asked for, or there is no image.
func TestCompare(t *testing.T) {
	was := gptImage(func(l *disk.Layout) { l.Volumes[0].UUID, l.Volumes[0].Label = "old", "root" })
	id := Wanted{Filesystems: true, Labels: "{name}-{label}"}.Derive(was, "key", "web")
	for name, tc := range map[string]struct {
		change func(v *disk.Volume)
		ok     bool
	}{
		"as asked for":        {func(v *disk.Volume) { v.UUID, v.Label = id.Filesystems["old"], "web-root" }, true},
		"the old UUID":        {func(v *disk.Volume) { v.Label = "web-root" }, false},
		"the old label":       {func(v *disk.Volume) { v.UUID = id.Filesystems["old"] }, false},
		"another filesystem":  {func(v *disk.Volume) { v.UUID, v.Label, v.FS = id.Filesystems["old"], "web-root", "xfs" }, false},
		"another partition":   {func(v *disk.Volume) { v.UUID, v.Label, v.Slot = id.Filesystems["old"], "web-root", 9 }, false},
		"nothing any more":    {func(v *disk.Volume) { v.UUID, v.Label, v.FS = "", "", "" }, false},
		"a UUID of no volume": {func(v *disk.Volume) { v.UUID, v.Label = "10000000-0000-4000-8000-00000000000a", "web-root" }, false},
	} {
		is := gptImage(func(l *disk.Layout) { l.Volumes[0].UUID, l.Volumes[0].Label = "old", "root"; tc.change(&l.Volumes[0]) })
		if err := compare(was, is, id); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWanted: what a base cannot be given is refused before anything is made.
func TestWanted(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	volume := func(n int, fs, uuid, label string) func(l *disk.Layout) {
		return func(l *disk.Layout) { l.Volumes[n].FS, l.Volumes[n].UUID, l.Volumes[n].Label = fs, uuid, label }
	}
	all := Wanted{Filesystems: true, Labels: "{name}-{label}"}
	for _, tc := range []struct {
		name   string
		wanted Wanted
		change func(l *disk.Layout)
		want   string // in the refusal, none if it is empty
	}{
		{"nothing is asked", Wanted{}, volume(0, "erofs", "u", "l"), ""},
		{"no names", all, nil, ""},
		{"ordinary names", all, volume(0, "ext4", "u", "root"), ""},
		{"an erofs", all, volume(1, "erofs", "u", ""), "partition 2 has erofs, of which nothing changes the UUID"},
		{"a squashfs, which has none", all, volume(1, "squashfs", "", ""), ""},
		{"its label", all, volume(1, "erofs", "", "x"), "of which nothing changes the label"},
		{"two of one UUID", all, func(l *disk.Layout) { l.Volumes[0].UUID, l.Volumes[1].UUID = "AB", "ab" },
			"partition 1 and partition 2 both have the filesystem UUID ab"},
		{"a label that just fits", all, volume(1, "xfs", "", "12345678"), ""},
		{"a longer one", all, volume(1, "xfs", "", "123456789"), "would have the label web-123456789, and xfs has room for 12 bytes"},
		{"a label with a space", all, volume(1, "ext4", "", "a b"), "only letters, digits"},
		{"two that become one", Wanted{Labels: "{name}-{label}"}, func(l *disk.Layout) {
			l.Volumes[0].Label, l.Volumes[1].Label = "x", "x"
		}, "partition 1 and partition 2 would both have the label web-x"},
		{"a dot on FAT", Wanted{Labels: "{label}.{name}"}, volume(2, "vfat", "", "ESP"), "a FAT volume's is of letters"},
	} {
		l := gptImage(tc.change)
		refused, err := tc.wanted.Check(l, "web")
		if err != nil || (len(refused) > 0) != (tc.want != "") || tc.want != "" && !strings.Contains(refused[0].Why, tc.want) {
			t.Errorf("%s: %v, %v, want %q", tc.name, refused, err, tc.want)
		}
	}
}

// TestFilesystemNamesAreStable: other ones for the same build would change every
// image that has them.
func TestFilesystemNamesAreStable(t *testing.T) {
	l := gptImage(func(l *disk.Layout) {
		l.Volumes[0].UUID, l.Volumes[0].Label = "AAAAAAAA-0000-4000-8000-000000000001", "root"
		l.Volumes[2].UUID, l.Volumes[2].Label = "1A2B-3C4D", "ESP"
	})
	got := Wanted{Filesystems: true, Labels: "{label}-{name}"}.Derive(l, "0123", "web")
	wantUUIDs := map[string]string{"aaaaaaaa-0000-4000-8000-000000000001": "658626ae-169f-5536-bc61-b360b6369f83",
		"1a2b-3c4d": "8778-8C0E"}
	if diff := cmp.Diff(wantUUIDs, got.Filesystems); diff != "" {
		t.Errorf("UUIDs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"root": "root-web", "ESP": "ESP-WEB"}, got.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if other := (Wanted{}).Derive(l, "0123", "web"); other.Filesystems != nil || other.Labels != nil || other.Disk != got.Disk {
		t.Errorf("without being asked for: %+v", other)
	}
}
