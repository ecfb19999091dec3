package disk_test

import (
	"errors"
	"fmt"
	"os"
	"path"
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
	i, dirs := guest(t, path)
	root := dirs["/"]
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

// TestMountsElsewhere: what a step does to the way to a mount, or to what is bound, has
// the next one see other files at the same places; and on a link nothing is mounted.
func TestMountsElsewhere(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	path := filepath.Join(t.TempDir(), "image.raw")
	truncate(t, path, 128<<20)
	subvolumes(t, path, "root")
	const fstab = "LABEL=it / btrfs subvol=root\nLABEL=it /mnt/on btrfs subvol=/\n" +
		"/mnt/on/in /srv none bind\n/opt/real/x /shown none bind\ntmpfs /mnt/on/way/x tmpfs\n"
	fixtures.Program(t, "", "btrfs", "filesystem", "label", path, "it")
	mkdirs := func(names ...string) (err error) {
		for _, name := range names {
			err = errors.Join(err, os.MkdirAll(name, 0o755))
		}
		return err
	}
	for _, tc := range []struct {
		name    string
		change  func(root, data string) error
		changed bool
		mounts  string
	}{
		{"an fstab", func(root, _ string) error {
			return errors.Join(os.WriteFile(root+"/etc/fstab", []byte(fstab), 0o644),
				mkdirs(root+"/mnt/on", root+"/srv", root+"/opt/real/x", root+"/opt/other/x", root+"/shown"))
		}, true, "/ /mnt/on /mnt/on/way/x /shown:/opt/real/x /srv:/mnt/on/in"},
		{"a directory beside", func(root, data string) error { return mkdirs(root+"/mnt/beside", data+"/in", data+"/way/x") }, false,
			"/ /mnt/on /mnt/on/way/x /shown:/opt/real/x /srv:/mnt/on/in"},
		{"what a mount lies in is another", func(root, _ string) error {
			return errors.Join(os.Rename(root+"/mnt", root+"/mnt2"), mkdirs(root+"/mnt/on"))
		}, true, "/ /mnt/on /mnt/on/way/x /shown:/opt/real/x /srv:/mnt/on/in"},
		{"what is bound is another", func(root, _ string) error {
			return errors.Join(os.Rename(root+"/opt/real", root+"/opt/old"), mkdirs(root+"/opt/real/x"))
		}, true, "/ /mnt/on /mnt/on/way/x /shown:/opt/real/x /srv:/mnt/on/in"},
		{"what is bound is a link", func(root, _ string) error {
			return errors.Join(os.Rename(root+"/opt/real", root+"/opt/older"), os.Symlink("other", root+"/opt/real"))
		}, true, "/ /mnt/on /mnt/on/way/x /shown:/opt/other/x /srv:/mnt/on/in"},
		{"the link leads elsewhere", func(root, _ string) error {
			return errors.Join(os.Remove(root+"/opt/real"), os.Symlink("old", root+"/opt/real"))
		}, true, "/ /mnt/on /mnt/on/way/x /shown:/opt/old/x /srv:/mnt/on/in"},
		{"what is bound is another, of the other volume", func(_, data string) error {
			return errors.Join(os.Rename(data+"/in", data+"/out"), mkdirs(data+"/in"))
		}, true, "/ /mnt/on /mnt/on/way/x /shown:/opt/old/x /srv:/mnt/on/in"},
		{"a link in the other volume, on the way", func(_, data string) error {
			return errors.Join(os.RemoveAll(data+"/way"), os.Symlink("/opt", data+"/way"))
		}, true, "/ /mnt/on /mnt/on/way/x? /shown:/opt/old/x /srv:/mnt/on/in"},
		{"and to what is bound", func(_, data string) error {
			return errors.Join(os.Remove(data+"/in"), os.Symlink("way/old", data+"/in"))
		}, true, "/ /mnt/on /mnt/on/way/x? /shown:/opt/old/x /srv:/opt/old"},
		{"nothing", func(string, string) error { return nil }, false,
			"/ /mnt/on /mnt/on/way/x? /shown:/opt/old/x /srv:/opt/old"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			i, dirs := guest(t, path)
			if err := tc.change(dirs["/"], dirs["/mnt/on"]); err != nil {
				t.Fatal(err)
			}
			changed, err := i.MountsChanged()
			if err != nil {
				t.Fatal(err)
			}
			var words []string
			for _, m := range i.Layout.Mounts {
				word := m.Mountpoint
				if m.Bind != "" {
					word += ":" + m.Bind
				}
				words = append(words, word+map[bool]string{true: "?"}[m.ByHand])
			}
			slices.Sort(words)
			if got := strings.Join(words, " "); changed != tc.changed || got != tc.mounts {
				t.Errorf("changed %t, %s, want %t, %s", changed, got, tc.changed, tc.mounts)
			}
		})
	}
}

// TestCommandLineOnFAT: what a step writes to a FAT volume, which the kernel need not
// know, counts for the command line that the next one is told.
func TestCommandLineOnFAT(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools, fixtures.Images)
	for _, tc := range []struct {
		layout, file, text string
	}{
		{"debian-12", "loader/entries/debian.conf", "title Debian\nlinux /debian/linux\noptions ro systemd.gpt_auto=0 %s\n"},
		{"raspberry", "cmdline.txt", "ro %s\n"},
	} {
		t.Run(tc.layout+" "+path.Base(tc.file), func(t *testing.T) {
			image := clone(t, tc.layout)
			i, _ := guest(t, image)
			n := slices.IndexFunc(i.Layout.Volumes, func(v disk.Volume) bool { return v.FS == "vfat" })
			for _, marker := range []string{"one", "two"} { // of one length
				dir := t.TempDir()
				file := filepath.Join(dir, tc.file)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, fmt.Appendf(nil, tc.text, marker), 0o644); err != nil {
					t.Fatal(err)
				}
				if err := i.FillFAT(t.Context(), i.Layout.Volumes[n], dir); err != nil {
					t.Fatal(err)
				}
				if _, err := i.MountsChanged(); err != nil {
					t.Fatal(err)
				}
				if line := i.CommandLine(); !strings.HasSuffix(line, " "+marker) {
					t.Errorf("the command line is %q, want one with %s", line, marker)
				}
			}
		})
	}
}

// guest opens an image, and mounts it for a guest. dirs are its mounts, by their places.
func guest(t testing.TB, path string) (i *disk.Image, dirs map[string]string) {
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
	if changed, err := i.MountsChanged(); changed || err != nil { // the first look
		t.Fatal(changed, err)
	}
	dirs = map[string]string{}
	for _, p := range places {
		if p.Mount != nil {
			dirs[p.At] = fmt.Sprintf("/proc/self/fd/%d", p.Mount.Fd())
		}
	}
	return i, dirs
}

// BenchmarkMountsChanged is what is asked after each step: nothing, and, with a look at
// all again, a line of fstab has changed.
func BenchmarkMountsChanged(b *testing.B) {
	fixtures.Require(b, fixtures.Root, fixtures.Tools, fixtures.Images)
	path := filepath.Join(b.TempDir(), "image.raw")
	fixtures.Clone(b, fixtures.Image(b, "debian-12"), path)
	i, dirs := guest(b, path)
	ask := func(b *testing.B) {
		if changed, err := i.MountsChanged(); changed || err != nil {
			b.Fatal(changed, err)
		}
		i.CommandLine()
	}
	b.Run("nothing", func(b *testing.B) {
		for b.Loop() {
			ask(b)
		}
	})
	b.Run("fstab", func(b *testing.B) {
		mode := os.FileMode(0o600)
		for b.Loop() {
			mode ^= 0o044
			if err := os.Chmod(filepath.Join(dirs["/"], "etc/fstab"), mode); err != nil {
				b.Fatal(err)
			}
			ask(b)
		}
	})
}
