package mutate

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/record"
)

// TestFull: which filesystem had no room, and what to write in the recipe.
func TestFull(t *testing.T) {
	const gib = 1 << 30
	file := filepath.Join(t.TempDir(), "base.raw")
	writeFile(t, file, "")
	if err := os.Truncate(file, 2*gib); err != nil {
		t.Fatal(err)
	}
	base, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	layout := disk.Layout{Table: disk.Bare, Volumes: []disk.Volume{{Size: 2 * gib, FS: "ext4", Role: disk.Root}},
		Mounts: []disk.Mounted{{Mountpoint: "/"}}}
	b := &build{base: base, plan: &plan{base: &record.Base{Size: 2 * gib, Layout: layout}, layout: &layout}}
	roomy := guest.Room{At: "/boot", Size: gib, Free: gib / 4 * 3, Files: 1000, Spare: 900}
	for name, tc := range map[string]struct {
		rooms []guest.Room
		said  bool
		want  string
	}{
		"full": {[]guest.Room{roomy, {At: "/", Size: 2040109465, Free: 4096, Files: 1000, Spare: 500}}, false,
			"the image's root filesystem is full (1.9 GiB): give it room with disk: {size: 4G}"},
		"no inodes": {[]guest.Room{{At: "/", Size: 2 * gib, Free: gib, Files: 1000}, roomy}, false,
			"the image's root filesystem has no inode left for another file (of 1000): give it room with disk: {size: 4G}"},
		"no count of inodes": {[]guest.Room{{At: "/", Size: 2 * gib, Free: gib}}, false, ""},
		"was full": {[]guest.Room{{At: "/", Size: 2 * gib, Free: gib / 2}, roomy}, true,
			"the image's root filesystem was full (2 GiB, of which 512 MiB are free again): give it room with disk: {size: 4G}"},
		"another failure":              {[]guest.Room{{At: "/", Size: 2 * gib, Free: gib / 2}, roomy}, false, ""},
		"in memory":                    {[]guest.Room{roomy}, true, "what is full is none of the image's filesystems"},
		"of the guest nothing is left": {nil, true, ""},
		"one that cannot grow": {[]guest.Room{{At: "/var", Size: gib}}, false,
			"the image's filesystem on /var is full (1 GiB), and the base mounts no partition of its own on /var: imgmut doctor shows"},
	} {
		got := b.full(tc.rooms, tc.said)
		if !strings.HasPrefix(got, tc.want) || tc.want == "" && got != "" || strings.Contains(got, "\n") {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestSaysFull(t *testing.T) {
	for _, line := range []string{
		"dd: error writing '/x': No space left on device",
		"E: You don't have enough free space in /var/cache/apt/archives/.",
	} {
		if !saysFull([]string{"before", line}, nil) {
			t.Errorf("%q does not say it", line)
		}
	}
	if saysFull([]string{"exit status 1", "free space is fine"}, errors.New("x")) {
		t.Error("what has another fault says so")
	}
	if !saysFull(nil, &os.PathError{Err: syscall.ENOSPC}) {
		t.Error("the kernel's word is not heard")
	}
}
