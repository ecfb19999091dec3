package disk_test

import (
	"bytes"
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
