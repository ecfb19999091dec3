package agent

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
)

// TestIgnoreSyncs: syncs succeed without being made, and nothing else changes,
// in this process and those it starts. In another process, for it is for good.
func TestIgnoreSyncs(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	const again = "IMGMUT_TEST_IGNORE_SYNCS"
	if os.Getenv(again) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestIgnoreSyncs$")
		cmd.Env = append(os.Environ(), again+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := unix.Fsync(-1); err != unix.EBADF {
		t.Fatalf("before: %v", err)
	}
	if err := ignoreSyncs(); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"fsync": unix.Fsync(-1), "fdatasync": unix.Fdatasync(-1), "syncfs": unix.Syncfs(-1),
		"sync_file_range": unix.SyncFileRange(-1, 0, 0, 0),
	} {
		if err != nil {
			t.Errorf("%s is made: %v", name, err)
		}
	}
	if err := unix.Close(-1); err != unix.EBADF {
		t.Errorf("close: %v", err)
	}
	out, err := exec.Command("dd", "if=/dev/null", "of=/dev/null", "conv=fsync").CombinedOutput()
	if err != nil { // EINVAL for a device
		t.Errorf("a program that syncs: %v: %s", err, out)
	}
}
