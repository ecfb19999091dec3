package guest

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/mount"
)

// TestSnapshotWithoutFreeze: a filesystem that the kernel cannot freeze, as FAT and tmpfs, cannot be written to while it is
// cloned, and can afterwards.
func TestSnapshotWithoutFreeze(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	m := tmpfs(t)
	if err := mount.Freeze(int(m.Fd())); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatalf("freeze: %v: this is a test of what cannot be frozen", err)
	}
	write := func() error { return os.WriteFile(fmt.Sprintf("/proc/self/fd/%d/file", m.Fd()), []byte("x"), 0o600) }
	var during error
	g := &Guest{mounts: []*os.File{m}}
	if err := g.Snapshot(func() error { during = write(); return nil }); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(during, unix.EROFS) {
		t.Errorf("written while it is cloned: %v, want %v", during, unix.EROFS)
	}
	if err := write(); err != nil {
		t.Errorf("written afterwards: %v", err)
	}
}

// tmpfs is one that nobody else sees.
func tmpfs(t *testing.T) *os.File {
	t.Helper()
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	detached := os.NewFile(uintptr(fd), "tmpfs")
	defer detached.Close()
	m, err := reopen(detached, unix.O_RDONLY, "/boot/efi")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}
