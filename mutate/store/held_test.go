package store_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/mount"
)

// TestSweepOfADiskThatIsStillHeld: it keeps nobody from working, and its name,
// by which it can be let go of, stays until it is.
func TestSweepOfADiskThatIsStillHeld(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	s := open(t)
	held, free := start(t, "run", s.Root()), start(t, "run", s.Root())
	held.kill()
	free.kill()
	disk, err := os.OpenFile(filepath.Join(held.said[0], "work.raw"), os.O_RDWR, 0)
	do(t, err)
	defer disk.Close()
	do(t, disk.Truncate(1<<20))
	device, err := mount.Loop(disk, mount.LoopOptions{})
	do(t, err)
	defer device.Close()

	started := time.Now()
	begin(t, reopen(t, s.Root()))
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("Open and Begin waited %s for somebody else's disk", took)
	}
	if !exists(disk.Name()) {
		t.Error("the name of a disk that is still held is gone")
	}
	if exists(free.said[0]) {
		t.Error("nothing was swept for the sake of one that could not be")
	}
	time.AfterFunc(time.Second, func() { device.Close() })
	if err := s.Sweep(t.Context()); err != nil || exists(held.said[0]) {
		t.Errorf("Sweep = %v and did not wait for the disk to be let go of", err)
	}
}
