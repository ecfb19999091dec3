package disk_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
)

// TestMountsBesideDevices: an image may have device nodes in its /dev, as mmdebstrap
// makes them, and its masks are links to one. No look at it opens any.
func TestMountsBesideDevices(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	path := filepath.Join(t.TempDir(), "image.raw")
	truncate(t, path, 128<<20)
	subvolumes(t, path, "root")
	i, dirs := guest(t, path)
	root := dirs["/"]
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"dev", "etc/systemd/system", "boot"} {
		check(os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	check(os.Remove(filepath.Join(root, "etc/fstab")))
	for _, node := range []struct {
		name         string
		kind, number uint32
	}{
		{"null", unix.S_IFCHR, 0x103}, {"zero", unix.S_IFCHR, 0x105}, {"disk", unix.S_IFBLK, 0x700},
		{"log", unix.S_IFSOCK, 0}, {"pipe", unix.S_IFIFO, 0},
	} {
		check(unix.Mknod(filepath.Join(root, "dev", node.name), node.kind|0o666, int(node.number)))
		for _, name := range []string{
			"etc/systemd/system/x.mount", "etc/systemd/system.control", "etc/fstab", "etc/kernel", "boot/grub", "home",
		} {
			link := filepath.Join(root, name)
			check(os.Symlink("/dev/"+node.name, link))
			if changed, err := i.MountsChanged(); changed || err != nil {
				t.Errorf("%s is a link to /dev/%s: changed %t, %v", name, node.name, changed, err)
			}
			check(os.Remove(link))
		}
	}
}
