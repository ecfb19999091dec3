package disk_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
)

// TestForksAskForNoPanic: what an ext filesystem asks of the kernel is taken out
// of a fork, as the programs of e2fsprogs see it, and put back to the byte.
func TestForksAskForNoPanic(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	for _, c := range []struct {
		name    string
		mkfs    []string
		tune    []string
		options string // set by debugfs
	}{
		{"ext4 with checksums", []string{"-t", "ext4", "-O", "metadata_csum,64bit"}, []string{"-e", "panic"}, ""},
		{"ext4 without", []string{"-t", "ext4", "-O", "^metadata_csum"}, []string{"-e", "panic"}, ""},
		{"ext2", []string{"-t", "ext2"}, []string{"-e", "panic"}, ""},
		{"by mount options", []string{"-t", "ext4"}, []string{"-e", "continue"}, "noatime,errors=panic"},
		{"by both", []string{"-t", "ext4"}, []string{"-e", "panic"}, "errors=panic"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "base.raw")
			const at = 1 << 20 // of a partition
			device := path + "?offset=1048576"
			truncate(t, path, 32<<20)
			fixtures.Program(t, "", "mke2fs", append(c.mkfs, "-q", "-F", "-E", "offset=1048576", path, "16M")...)
			fixtures.Program(t, "", "tune2fs", append(c.tune, device)...)
			if c.options != "" {
				debugfs(t, device, "set_super_value mount_opts "+c.options)
			}
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			fork := filepath.Join(t.TempDir(), "fork.raw")
			fixtures.Clone(t, path, fork)
			base, f := open(t, path, os.O_RDONLY), open(t, fork, os.O_RDWR)
			l := &disk.Layout{Table: disk.GPT, Volumes: []disk.Volume{{Slot: 1, Offset: at, Size: 16 << 20, FS: c.mkfs[1]}}}

			asks := func() bool {
				return strings.Contains(strings.ToLower(fixtures.Program(t, "", "dumpe2fs", "-h", fork+"?offset=1048576")), "panic")
			}
			if !asks() {
				t.Fatal("the base does not ask for a panic")
			}
			if err := l.Disarm(f); err != nil {
				t.Fatal(err)
			}
			if asks() {
				t.Error("the fork still asks for a panic")
			}
			fixtures.Program(t, "", "e2fsck", "-f", "-n", fork+"?offset=1048576") // which checks the checksum
			if err := l.Rearm(f, base); err != nil {
				t.Fatal(err)
			}
			after, err := os.ReadFile(fork)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(before, after) {
				t.Error("the image does not ask what its base asks, or something else of it changed")
			}
		})
	}
}

// TestForksOfSeveralVolumes: each volume that asks for a panic is disarmed and armed again,
// whatever lies before it, and one that cannot be written to is told of.
func TestForksOfSeveralVolumes(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	path := filepath.Join(t.TempDir(), "image.raw")
	const size = 4 << 20
	truncate(t, path, 5*size)
	l := &disk.Layout{Table: disk.GPT}
	for n, fs := range []string{"", "ext4", "ext4", "ext2", "ext4"} {
		v := disk.Volume{Slot: n + 1, Offset: int64(n) * size, Size: size, FS: fs}
		if l.Volumes = append(l.Volumes, v); fs == "" {
			continue
		}
		asks := map[bool]string{true: "panic", false: "continue"}[n > 1]
		at := fmt.Sprintf("offset=%d", v.Offset)
		fixtures.Program(t, "", "mke2fs", "-q", "-F", "-t", fs, "-e", asks, "-E", at, path, "4M")
	}
	asking := func() (slots string) {
		for _, v := range l.Volumes[1:] {
			device := fmt.Sprintf("%s?offset=%d", path, v.Offset)
			if strings.Contains(fixtures.Program(t, "", "dumpe2fs", "-h", device), "Panic") {
				slots += fmt.Sprint(" ", v.Slot)
			}
		}
		return slots
	}
	base := path + ".base"
	fixtures.Clone(t, path, base)
	f, from := open(t, path, os.O_RDWR), open(t, base, os.O_RDONLY)
	if got := asking(); got != " 3 4 5" {
		t.Fatalf("slots%s ask for a panic", got)
	}
	if err := l.Disarm(from); err == nil || !strings.Contains(err.Error(), "write the superblock of partition 3") {
		t.Errorf("what cannot be written to is disarmed: %v", err)
	}
	if err := l.Disarm(f); err != nil || asking() != "" {
		t.Errorf("disarmed, slots%s ask for a panic: %v", asking(), err)
	}
	if err := l.Rearm(from, from); err == nil || !strings.Contains(err.Error(), "write the superblock of partition 3") {
		t.Errorf("what cannot be written to is armed: %v", err)
	}
	if err := l.Rearm(f, from); err != nil || asking() != " 3 4 5" {
		t.Errorf("armed again, slots%s ask for a panic: %v", asking(), err)
	}
	clobber(t, path, 3*size+1024, 1024)
	if err := l.Rearm(f, from); err == nil || !strings.Contains(err.Error(), "partition 4 is no longer ext2") {
		t.Errorf("what is no filesystem any more is armed: %v", err)
	}
}

// TestOtherForksAreLeftAlone: what asks for nothing, or is no ext filesystem, is
// not written to.
func TestOtherForksAreLeftAlone(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	path := filepath.Join(t.TempDir(), "image.raw")
	truncate(t, path, 16<<20)
	fixtures.Program(t, "", "mke2fs", "-q", "-F", "-t", "ext4", "-e", "continue", path)
	f := open(t, path, os.O_RDONLY) // so that writing fails
	for _, fs := range []string{"ext4", "xfs", "vfat", ""} {
		l := &disk.Layout{Table: disk.Bare, Volumes: []disk.Volume{{Size: 16 << 20, FS: fs}}}
		if err := l.Disarm(f); err != nil {
			t.Errorf("disarm %q: %v", fs, err)
		}
		if err := l.Rearm(f, f); err != nil {
			t.Errorf("rearm %q: %v", fs, err)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty.raw")
	truncate(t, empty, 16<<20)
	l := &disk.Layout{Table: disk.Bare, Volumes: []disk.Volume{{Size: 16 << 20, FS: "ext4"}}}
	if err := l.Disarm(open(t, empty, os.O_RDONLY)); err != nil {
		t.Errorf("a volume without a superblock: %v", err)
	}
}
