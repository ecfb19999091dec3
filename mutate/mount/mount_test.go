package mount_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/mount"
)

// formatted is a file with a filesystem, made by mkfs with these arguments.
func formatted(t *testing.T, mkfs ...string) *os.File {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	f, err := os.Create(filepath.Join(t.TempDir(), "fs.img"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(320 << 20); err != nil { // what mkfs.xfs wants at least
		t.Fatal(err)
	}
	program(t, mkfs[0], append(mkfs[1:], f.Name())...)
	return f
}

func program(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}

// TestSuperblockCannotAskForPanic: what the filesystem wants done about damage
// is the image's word, and the machine is the user's.
func TestSuperblockCannotAskForPanic(t *testing.T) {
	f := formatted(t, "mkfs.ext4", "-q", "-e", "panic")
	dev := attach(t, f, mount.LoopOptions{})
	m, err := mount.Detached(mount.Request{Device: dev.Name(), FS: "ext4"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	options, err := os.ReadFile("/proc/fs/ext4/" + filepath.Base(dev.Name()) + "/options")
	if err != nil {
		t.Fatal(err)
	}
	if text := string(options); strings.Contains(text, "errors=panic") || !strings.Contains(text, "errors=remount-ro") {
		t.Errorf("mounted with %q", text)
	}
}

// TestOnlySupportedFilesystemsReachTheKernel: each driver is code that would run
// as root on the bytes of a stranger.
func TestOnlySupportedFilesystemsReachTheKernel(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	for _, fs := range []string{"ntfs3", "hfsplus", "reiserfs", "minix", "proc", "tmpfs", ""} {
		if m, err := mount.Detached(mount.Request{Device: "none", FS: fs}); err == nil {
			m.Close()
			t.Errorf("mounted %q", fs)
		} else if !strings.Contains(err.Error(), "no filesystem that imgmut mounts") {
			t.Errorf("%s: %v, want it refused before the kernel is asked", fs, err)
		}
	}
}

// TestDetachedWritesNothing when it is read-only, and lets a twin of an XFS be.
func TestDetachedTwins(t *testing.T) {
	a := formatted(t, "mkfs.xfs", "-q")
	b, err := os.Create(filepath.Join(t.TempDir(), "twin.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	program(t, "cp", "--sparse=always", a.Name(), b.Name())
	for _, f := range []*os.File{a, b} {
		dev := attach(t, f, mount.LoopOptions{})
		m, err := mount.Detached(mount.Request{Device: dev.Name(), FS: "xfs"})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
	}
}

// TestClaimFindsForeignMounts: an XFS that the machine has mounted stands in the
// way of machined's mount of its twin, and not of imgmut's own.
func TestClaimFindsForeignMounts(t *testing.T) {
	f := formatted(t, "mkfs.xfs", "-q")
	out, err := exec.Command("blkid", "-p", "-o", "value", "-s", "UUID", f.Name()).Output()
	if err != nil {
		t.Fatal(err)
	}
	claim := mount.Claim{Note: func(text string) { t.Errorf("note: %s", text) },
		Filesystems: []mount.Filesystem{{Type: "xfs", UUID: strings.TrimSpace(string(out))}}}
	lock := func() error {
		unlock, err := claim.Lock(t.Context())
		if err == nil {
			unlock()
		}
		return err
	}
	claim.Fork, claim.Foreign = filepath.Join(t.TempDir(), "fork.raw"), true
	if err := lock(); err != nil {
		t.Errorf("nothing is mounted, and Lock = %v", err)
	}
	dir := t.TempDir()
	program(t, "mount", "-o", "loop", f.Name(), dir)
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	err = lock()
	if fault.Of(err) != fault.Host || !strings.Contains(err.Error(), dir) ||
		!strings.Contains(fault.Mend(err), "unmount "+dir) {
		t.Errorf("Lock = %v, hint %q; want it to name the mount on %s", err, fault.Mend(err), dir)
	}
	claim.Foreign = false
	if err := lock(); err != nil {
		t.Errorf("imgmut's own mounts do not mind, and Lock = %v", err)
	}
}
