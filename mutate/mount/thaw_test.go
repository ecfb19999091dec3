package mount_test

import (
	"crypto/sha256"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/mount"
)

var filesystems = [][]string{{"mkfs.ext4", "-q"}, {"mkfs.xfs", "-q"}, {"mkfs.btrfs", "-q"}}

// TestRecoverEndsAFreeze that outlived all its mounts.
func TestRecoverEndsAFreeze(t *testing.T) {
	for _, mkfs := range filesystems {
		f := formatted(t, mkfs...)
		dev, err := mount.Loop(f, mount.LoopOptions{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := mount.Detached(mount.Request{Device: dev.Name(), FS: mkfs[0][len("mkfs."):]})
		if err != nil {
			t.Fatal(err)
		}
		root, err := unix.Openat(int(m.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := mount.Freeze(root); err != nil {
			t.Fatal(err)
		}
		unix.Close(root)
		m.Close()
		dev.Close()
		if err := mount.Recover(t.Context(), f.Name()); err != nil {
			t.Errorf("%s: Recover = %v", mkfs[0], err)
		}
		if path, err := mount.FindLoop(f); path != "" || err != nil {
			t.Errorf("%s: %s still has the file, %v", mkfs[0], path, err)
		}
	}
}

// TestThawMountsNothingAnew: to mount what is not mounted would write to it, and
// could be in the way of a fork of it.
func TestThawMountsNothingAnew(t *testing.T) {
	for _, mkfs := range filesystems {
		f := formatted(t, mkfs...)
		before := sum(t, f.Name())
		attach(t, f, mount.LoopOptions{})
		if err := mount.Thaw(f); err != nil {
			t.Error(err)
		}
		if sum(t, f.Name()) != before {
			t.Errorf("%s: Thaw changed it", mkfs[0])
		}
	}
}

func sum(t *testing.T, name string) [sha256.Size]byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
