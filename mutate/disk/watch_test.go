package disk

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/etc"
)

// watchedDir is a directory of files, as a tree. A text that begins with "-> " is a link.
func watchedDir(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(name), 0o755)
		if target, ok := strings.CutPrefix(text, "-> "); ok && err == nil {
			err = os.Symlink(target, name)
		} else if err == nil {
			err = os.WriteFile(name, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// rewrite keeps size and time of a file: only its inode tells, by the time of change.
func rewrite(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(name, fi.ModTime(), fi.ModTime()); err != nil {
		t.Fatal(err)
	}
}

// TestWatch: each change that could change what the system mounts, or its kernel's
// command line, is one in what was looked at, and nothing else is.
func TestWatch(t *testing.T) {
	const units, own = "usr/lib/systemd/system/", "etc/systemd/system/"
	unit := "[Unit]\nConditionPathExists=/etc/flag\nConditionDirectoryNotEmpty=/opt/full\n[Mount]\nWhat=x\nWhere=/srv\n"
	root := watchedDir(t, map[string]string{
		"etc/fstab": "x /mnt/on/place ext4\n", "etc/passwd": "x", "lib": "-> usr/lib", "run/mount": "x", "opt/full/x": "x",
		units + "local-fs.target": "[Unit]\n", units + "local-fs.target.wants/srv.mount": "-> ../srv.mount",
		units + "srv.mount": unit, units + "other/deep": "x", units + "srv.mount.d/x.conf": "[Unit]\n",
		own + "linked.mount": "-> /opt/linked", own + "local-fs.target.wants/linked.mount": "-> ../linked.mount",
		"opt/linked": "[Mount]\nWhat=x\nWhere=/linked\n", "mnt/on": "-> ../opt/a", "opt/a/x": "", "opt/b/x": "",
		"usr/local/lib/systemd/system/z.mount": "x",
		"boot/grub/grub.cfg":                   "menuentry x {\n linux /vmlinuz root=x\n}\n", "boot/vmlinuz": "x",
		"etc/kernel/x": "",
	})
	at := func(name string) string { return filepath.Join(root, name) }
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	look := func() *watch {
		t.Helper()
		time.Sleep(2 * tick) // what has changed just now is looked at once more
		w := newWatch()
		if _, err := etc.Mounts(w.of(dir, false), ""); err != nil {
			t.Fatal(err)
		}
		boot.CommandLine(w.of(dir, false))
		return w
	}
	link := func(target, name string) error {
		if err := os.Remove(at(name)); err != nil {
			return err
		}
		return os.Symlink(target, at(name))
	}
	w := look()
	for _, tc := range []struct {
		name    string
		change  func() error
		changes bool
	}{
		{"nothing", func() error { return nil }, false},
		{"another file of /etc", func() error { rewrite(t, at("etc/passwd")); return os.WriteFile(at("etc/new"), nil, 0o644) }, false},
		{"a directory that is none of a unit", func() error { rewrite(t, at(units+"other/deep")); return nil }, false},
		{"fstab", func() error { rewrite(t, at("etc/fstab")); return nil }, true},
		{"fstab, to what it was", func() error { rewrite(t, at("etc/fstab")); return nil }, true},
		{"a unit", func() error { rewrite(t, at(units+"srv.mount")); return nil }, true},
		{"a unit, to what it was", func() error { rewrite(t, at(units+"srv.mount")); return nil }, true},
		{"a unit where it really lies", func() error { rewrite(t, at("opt/linked")); return nil }, true},
		{"so again", func() error { rewrite(t, at("opt/linked")); return nil }, true},
		{"a drop-in", func() error { rewrite(t, at(units+"srv.mount.d/x.conf")); return nil }, true},
		{"a link of a unit", func() error { return link("../linked", own+"local-fs.target.wants/linked.mount") }, true},
		{"a new link", func() error { return os.Symlink("z", at(own+"local-fs.target.wants/z.mount")) }, true},
		{"a new unit", func() error { return os.WriteFile(at(own+"b.mount"), nil, 0o644) }, true},
		{"a unit that is gone", func() error { return os.Remove(at(own + "b.mount")) }, true},
		{"a new directory", func() error { return os.Mkdir(at(own+"b.mount.d"), 0o755) }, true},
		{"a directory of units", func() error { return os.MkdirAll(at("etc/systemd/system.control"), 0o755) }, true},
		{"what a condition asks for", func() error { return os.WriteFile(at("etc/flag"), nil, 0o644) }, true},
		{"a directory that one asks for", func() error { return os.Remove(at("opt/full/x")) }, true},
		{"the link on the way to a place", func() error { return link("../opt/b", "mnt/on") }, true},
		{"a directory on the way, to a link", func() error {
			if err := os.Rename(at("opt/b"), at("opt/c")); err != nil {
				return err
			}
			return os.Symlink("c", at("opt/b"))
		}, true},
		{"the configuration of a boot loader", func() error { rewrite(t, at("boot/grub/grub.cfg")); return nil }, true},
		{"another boot loader", func() error { return os.WriteFile(at("boot/extlinux.conf"), nil, 0o644) }, true},
		{"a loader entry", func() error { return os.MkdirAll(at("boot/loader/entries"), 0o755) }, true},
		{"a unified kernel image", func() error { return os.MkdirAll(at("EFI/Linux"), 0o755) }, true},
		{"the command line of new kernels", func() error { return os.WriteFile(at("etc/kernel/cmdline"), []byte("x"), 0o644) }, true},
		{"no fstab", func() error { return os.Remove(at("etc/fstab")) }, true},
	} {
		if err := tc.change(); err != nil {
			t.Fatal(err)
		}
		if changed := w.changed(nil); changed != tc.changes {
			t.Errorf("%s: changed = %t", tc.name, changed)
		}
		if tc.changes {
			w = look()
		}
	}
}

// TestWatchOfWhatJustChanged: two changes within one tick of the kernel's clock have one
// time, so what was looked at between them is not taken for unchanged.
func TestWatchOfWhatJustChanged(t *testing.T) {
	root := watchedDir(t, map[string]string{"file": "x"})
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	w := newWatch()
	etc.Read(w.of(dir, false), "file")
	if !w.changed(nil) {
		t.Error("a file that was written just now is taken for unchanged")
	}
}

// TestWatchWithoutTimes: where no inode and no time tells, what was read is read again,
// and nothing else.
func TestWatchWithoutTimes(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	root := watchedDir(t, map[string]string{"text": "text", "long": long, "seen": "x", "dir/a": ""})
	at := func(name string) string { return filepath.Join(root, name) }
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	look := func() *watch {
		t.Helper()
		w := newWatch()
		tree := w.of(dir, true)
		for range 2 {
			if names, err := etc.ReadDir(tree, "dir", 10); err != nil || len(names) == 0 {
				t.Fatal(names, err)
			}
			etc.Read(tree, "text")
			etc.Exists(tree, "seen")
			f, err := tree.Open("long")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.(io.Seeker).Seek(-10, io.SeekEnd); err != nil {
				t.Fatal(err)
			}
			if n, err := f.Read(make([]byte, 4)); n != 4 || err != nil {
				t.Fatal(n, err)
			}
			f.Close()
		}
		return w
	}
	write := func(name string, offset int64) error {
		f, err := os.OpenFile(at(name), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt([]byte("y"), offset)
		return err
	}
	for _, tc := range []struct {
		name    string
		change  func() error
		changes bool
	}{
		{"nothing", func() error { return nil }, false},
		{"the same in another file", func() error {
			if err := os.WriteFile(at("new"), []byte("text"), 0o644); err != nil {
				return err
			}
			return os.Rename(at("new"), at("text"))
		}, false},
		{"a file that was not read", func() error { return write("seen", 0) }, false},
		{"what was not read of a file", func() error { return write("long", 7) }, false},
		{"what was read of it", func() error { return write("long", 1<<20-9) }, true},
		{"its length", func() error { return os.Truncate(at("long"), 1<<20-1) }, true},
		{"a text", func() error { return write("text", 2) }, true},
		{"a name", func() error { return os.Rename(at("dir/a"), at("dir/b")) }, true},
		{"another name", func() error { return os.WriteFile(at("dir/c"), nil, 0o644) }, true},
		{"no file", func() error { return os.Remove(at("seen")) }, true},
		{"no directory", func() error { return os.RemoveAll(at("dir")) }, true},
	} {
		w := look()
		if err := tc.change(); err != nil {
			t.Fatal(err)
		}
		if changed := w.changed(nil); changed != tc.changes {
			t.Errorf("%s: changed = %t", tc.name, changed)
		}
	}
}

// TestWatchNotesEachWay: whichever way a name is looked at, it is noted.
func TestWatchNotesEachWay(t *testing.T) {
	for name, look := range map[string]func(*Tree){
		"Open":     func(t *Tree) { _, _ = t.Open("new") },
		"Stat":     func(t *Tree) { _, _ = t.Stat("new") },
		"Lstat":    func(t *Tree) { _, _ = t.Lstat("new") },
		"ReadFile": func(t *Tree) { _, _ = t.ReadFile("new") },
		"ReadDir":  func(t *Tree) { _, _ = t.ReadDir(".") },
		"Sub": func(t *Tree) {
			if sub, err := fs.Sub(t, "dir"); err == nil {
				_ = etc.Exists(sub, "new")
			}
		},
	} {
		root := watchedDir(t, map[string]string{"dir/x": ""})
		time.Sleep(2 * tick)
		dir, err := os.Open(root)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		w := newWatch()
		look(w.of(dir, false))
		if w.changed(nil) {
			t.Errorf("%s: it has changed before something did", name)
		}
		for _, new := range []string{"new", "dir/new"} {
			if err := os.WriteFile(filepath.Join(root, new), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if !w.changed(nil) {
			t.Errorf("%s: a new file is not seen", name)
		}
	}
}
