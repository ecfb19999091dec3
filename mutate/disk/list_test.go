package disk_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
)

// image makes a file of 32 MiB with the table that sfdisk makes of a script,
// or without one.
func image(t *testing.T, script string) string {
	t.Helper()
	fixtures.Require(t, fixtures.Tools)
	path := filepath.Join(t.TempDir(), "image.raw")
	truncate(t, path, 32<<20)
	if script != "" {
		fixtures.Program(t, script, "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", path)
	}
	return path
}

// TestList: what is in an image shows without mounting it, and so without root.
func TestList(t *testing.T) {
	const esp = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	const home = "933ac7e1-2eb4-4f13-b844-0e14e2aef915"
	gpt := "label: gpt\nlabel-id: 11111111-2222-4333-8444-555555555555\n" +
		"1: start=2048, size=8192, type=" + esp + ", uuid=AAAAAAAA-0000-4000-8000-000000000001, name=\"EFI System\"\n" +
		"3: start=16384, size=32768, type=" + home + ", uuid=aaaaaaaa-0000-4000-8000-000000000003, attrs=\"GUID:63\"\n"
	for _, tc := range []struct {
		name, script string
		fill         func(t *testing.T, path string)
		want         disk.Layout
	}{
		{"GPT", gpt, func(t *testing.T, path string) {
			fixtures.Program(t, "", "mkfs.vfat", "--offset", "2048", "-i", "1A2B3C4D", "-n", "EFI", path, "4096")
			fixtures.Program(t, "", "mkfs.ext4", "-q", "-F", "-E", "offset=8388608", "-U", rootUUID, "-L", `a b\c`, path, "16M")
		}, disk.Layout{Table: disk.GPT, Volumes: []disk.Volume{
			{Slot: 1, Offset: 2048 * 512, Size: 8192 * 512, Type: esp, PartUUID: "aaaaaaaa-0000-4000-8000-000000000001",
				PartLabel: "EFI System", FS: "vfat", UUID: "1A2B-3C4D", Label: "EFI"},
			{Slot: 3, Offset: 16384 * 512, Size: 32768 * 512, Type: home, PartUUID: "aaaaaaaa-0000-4000-8000-000000000003",
				NoAuto: true, FS: "ext4", UUID: rootUUID, Label: `a b\c`},
		}}},
		{"DOS", "label: dos\nlabel-id: 0x5ec0ffee\n" +
			"2: start=2048, size=8192, type=82\n3: start=16384, type=5\n5: start=18432, size=2048\n",
			func(t *testing.T, path string) {
				out := filepath.Join(t.TempDir(), "swap")
				truncate(t, out, 8192*512)
				fixtures.Program(t, "", "mkswap", "-q", "-U", bootUUID, out)
				fixtures.Program(t, "", "dd", "if="+out, "of="+path, "bs=512", "seek=2048", "conv=notrunc", "status=none")
			}, disk.Layout{Table: disk.MBR, Volumes: []disk.Volume{
				{Slot: 2, Offset: 2048 * 512, Size: 8192 * 512, Type: "0x82", PartUUID: "5ec0ffee-02", FS: "swap", UUID: bootUUID},
				{Slot: 3, Offset: 16384 * 512, Size: 49152 * 512, Type: "0x05", PartUUID: "5ec0ffee-03"},
				{Slot: 5, Offset: 18432 * 512, Size: 2048 * 512, Type: "0x83", PartUUID: "5ec0ffee-05"},
			}}},
		{"one filesystem", "", func(t *testing.T, path string) {
			fixtures.Program(t, "", "mkfs.ext4", "-q", "-F", "-U", rootUUID, path)
		}, disk.Layout{Table: disk.Bare, Volumes: []disk.Volume{{Size: 32 << 20, FS: "ext4", UUID: rootUUID}}}},
		{"nothing", "", func(*testing.T, string) {}, disk.Layout{Table: disk.Bare, Volumes: []disk.Volume{{Size: 32 << 20}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := image(t, tc.script)
			tc.fill(t, path)
			got, err := disk.List(t.Context(), open(t, path, os.O_RDONLY))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tc.want, got); diff != "" {
				t.Errorf("List (-want +got):\n%s", diff)
			}
			if v, ok := got.Slot(99); ok {
				t.Errorf("slot 99 is %+v", v)
			}
			for _, want := range tc.want.Volumes {
				if v, ok := got.Slot(want.Slot); !ok || v != want {
					t.Errorf("slot %d is %+v", want.Slot, v)
				}
			}
		})
	}
}

// TestListRefuses what is damaged or could be two things, and says what helps.
func TestListRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		spoil        func(t *testing.T, path string)
		want, mend   string
	}{
		{"an empty file", "", func(t *testing.T, path string) { truncate(t, path, 0) }, "the image is empty", "downloaded"},
		{"a damaged GPT", "label: gpt\nsize=4MiB\n", func(t *testing.T, path string) { clobber(t, path, 512, 512) },
			"primary GPT", "sgdisk -e"},
		{"a truncated GPT", "label: gpt\nsize=4MiB\n", func(t *testing.T, path string) { truncate(t, path, 8<<20) },
			"truncated", "download the image again"},
		{"a truncated DOS table", "label: dos\nstart=2048, size=8192\n",
			func(t *testing.T, path string) { truncate(t, path, 1<<20) },
			"truncated", "download the image again"},
		{"marks of two filesystems", "label: gpt\nstart=2048, size=32768\n", func(t *testing.T, path string) {
			fixtures.Program(t, "", "mkfs.ext4", "-q", "-F", "-E", "offset=1048576", path, "16M")
			fat := filepath.Join(t.TempDir(), "fat")
			truncate(t, fat, 16<<20)
			fixtures.Program(t, "", "mkfs.vfat", fat)
			// ext4 begins after the boot sector.
			fixtures.Program(t, "", "dd", "if="+fat, "of="+path, "bs=512", "seek=2048", "count=1", "conv=notrunc", "status=none")
		}, "partition 1 holds the marks of more than one filesystem", "wipefs"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := image(t, tc.script)
			tc.spoil(t, path)
			_, err := disk.List(t.Context(), open(t, path, os.O_RDONLY))
			if fault.Of(err) != fault.Image || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("List: %v, want an error about the image with %q", err, tc.want)
			}
			if mend := fault.Mend(err); !strings.Contains(mend, tc.mend) {
				t.Errorf("the mend is %q, want one with %q", mend, tc.mend)
			}
		})
	}
}

// TestListBoundsThePartitions: a table may have thousands, and a program is run
// for each that is looked into.
func TestListBoundsThePartitions(t *testing.T) {
	script := func(n int) string {
		text := "label: gpt\ntable-length: 4096\n"
		for i := range n {
			text += fmt.Sprintf("start=%d, size=8\n", 8192+8*i)
		}
		return text
	}
	f := open(t, image(t, script(255)), os.O_RDONLY)
	if l, err := disk.List(t.Context(), f); err != nil || len(l.Volumes) != 255 {
		t.Errorf("255 partitions: %v", err)
	}
	f = open(t, image(t, script(256)), os.O_RDONLY)
	if _, err := disk.List(t.Context(), f); fault.Of(err) != fault.Image ||
		!strings.Contains(err.Error(), "256 partitions") {
		t.Errorf("256 partitions: error %v, want one of the image's", err)
	}
}
