package mount

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
)

// TestConflictMend: which mounts of the machine stand in whose way.
func TestConflictMend(t *testing.T) {
	own, machined := Claim{Fork: "/store/work.raw"}, Claim{Fork: "/pool/web.raw", Foreign: true}
	for _, tc := range []struct {
		claim      Claim
		fs, kernel string
		conflict   bool
	}{
		{own, "xfs", "5.15.0", false}, // mounted with nouuid
		{machined, "xfs", "6.18.2", true},
		{own, "btrfs", "5.15.0-91-generic", true},
		{machined, "btrfs", "6.1.0-18-amd64", true},
		{machined, "btrfs", "6.6.99", true},
		{machined, "btrfs", "6.7.0-rc1", false},
		{own, "btrfs", "6.18.44-fc-v669", false},
		{machined, "btrfs", "7.0.1", false},
		{machined, "ext4", "5.15.0", false},
	} {
		mend := tc.claim.conflictMend(Filesystem{Type: tc.fs}, tc.kernel)
		if (mend != "") != tc.conflict {
			t.Errorf("%s on Linux %s, for %q: mend %q, want one: %t", tc.fs, tc.kernel, tc.claim.Fork, mend, tc.conflict)
		}
	}
}

// TestMountedUUIDs are found, by the table of mounts and on the device, as
// blkid has them.
func TestMountedUUIDs(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	for fs := range uuidAt {
		file, dir := filepath.Join(t.TempDir(), "fs.img"), t.TempDir()
		for _, args := range [][]string{
			{"truncate", "-s", "320M", file}, {"mkfs." + fs, "-q", file}, {"mount", "-o", "loop", file, dir},
		} {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%q: %v: %s", args, err, out)
			}
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		want, err := exec.Command("blkid", "-p", "-o", "value", "-s", "UUID", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		table, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		var got string
		for _, m := range parseMounts(string(table)) {
			if m.place == dir && m.fs == fs {
				got = diskUUID(m.source, fs)
			}
		}
		if got == "" || got != strings.TrimSpace(string(want)) {
			t.Errorf("%s: UUID %q, want %s", fs, got, want)
		}
	}
}
