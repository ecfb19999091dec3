package disk_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
)

// TestMountsChanged: what a step writes decides what is mounted for the next one, and
// what that is told of the kernel's command line.
func TestMountsChanged(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	path := filepath.Join(t.TempDir(), "image.raw")
	truncate(t, path, 128<<20)
	subvolumes(t, path, "root")
	i, root := guest(t, path)
	write := func(name, text string) {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, time.Unix(1, 0), time.Unix(1, 0)); err != nil { // no size, and no time, tells it
			t.Fatal(err)
		}
	}
	menu := func(word string) string {
		return "menuentry 'x' {\n\tlinux /vmlinuz root=UUID=" + i.Layout.Volumes[0].UUID + " " + word + "\n}\n"
	}
	for _, tc := range []struct {
		name, file, text string
		changed          bool
		options, line    string
	}{
		{"another file", "etc/motd", "hello", false, "subvol=root", ""},
		{"a command line", "boot/grub/grub.cfg", menu("one"), false, "subvol=root", "one"},
		{"one of the same length", "boot/grub/grub.cfg", menu("two"), false, "subvol=root", "two"},
		{"how root is mounted", "etc/fstab", "UUID=x / btrfs compress=zstd 0 0\n", true, "subvol=root,compress=zstd", "two"},
		{"so again", "etc/fstab", "UUID=y / btrfs compress=zstd 0 0\n", false, "subvol=root,compress=zstd", "two"},
		{"no more", "etc/fstab", "UUID=x / btrfs defaults 0 0\n", true, "subvol=root", "two"},
	} {
		write(tc.file, tc.text)
		changed, err := i.MountsChanged()
		if err != nil {
			t.Fatal(err)
		}
		n := slices.IndexFunc(i.Layout.Mounts, func(m disk.Mounted) bool { return m.Mountpoint == "/" })
		options := strings.Join(i.Layout.Mounts[n].Options, ",")
		if changed != tc.changed || options != tc.options || !strings.HasSuffix(i.CommandLine(), tc.line) {
			t.Errorf("%s: changed %t, options %s, command line %s", tc.name, changed, options, i.CommandLine())
		}
	}
}

// guest opens an image, and mounts it for a guest, of which it gives the root.
func guest(t *testing.T, path string) (i *disk.Image, root string) {
	t.Helper()
	f := open(t, path, os.O_RDWR)
	l, err := inspect(t, f)
	if err != nil {
		t.Fatal(err)
	}
	i, err = disk.OpenKnown(t.Context(), f, l, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	places, err := i.MountGuest(disk.GuestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.MountsChanged(); err != nil { // the first look
		t.Fatal(err)
	}
	return i, fmt.Sprintf("/proc/self/fd/%d", places[0].Mount.Fd())
}
