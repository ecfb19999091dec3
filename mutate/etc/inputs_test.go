package etc_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/etc"
)

// TestMountInputs: each change that Mounts could see changes the sum, and nothing
// else does.
func TestMountInputs(t *testing.T) {
	root := write(t, map[string]string{
		"etc/fstab":          "x",
		"etc/passwd":         "x",
		"e/a.mount":          "x",
		"u/a.mount":          "x",
		"e/a.mount.d/x.conf": "x",
		"e/x.wants/y":        "-> z",
		"l/z.mount":          "x",
		"u/other/deep":       "x", "lib": "-> usr/lib", "run/mount": "x",
	})
	sum := func(tree fs.FS) string {
		t.Helper()
		digest, err := etc.MountInputs(tree)
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	at := func(name string) string { return filepath.Join(root, longName(name)) }
	link := func(target, name string) error {
		if err := os.Remove(at(name)); err != nil {
			return err
		}
		return os.Symlink(target, at(name))
	}
	// rewrite keeps size and time of a file: only the time of change tells.
	rewrite := func(name string) error {
		fi, err := os.Stat(at(name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(at(name), []byte("y"), 0o644); err != nil {
			return err
		}
		return os.Chtimes(at(name), fi.ModTime(), fi.ModTime())
	}
	before := sum(os.DirFS(root))
	for _, tc := range []struct {
		name    string
		change  func() error
		changes bool
	}{
		{"nothing", func() error { return nil }, false},
		{"another file of /etc", func() error { return rewrite("etc/passwd") }, false},
		{"a directory that is none of a unit", func() error { return rewrite("u/other/deep") }, false},
		{"fstab", func() error { return rewrite("etc/fstab") }, true},
		{"a unit in /etc", func() error { return rewrite("e/a.mount") }, true},
		{"a unit in /usr", func() error { return rewrite("u/a.mount") }, true},
		{"a unit in /usr/local", func() error { return rewrite("l/z.mount") }, true},
		{"a drop-in", func() error { return rewrite("e/a.mount.d/x.conf") }, true},
		{"a link", func() error { return link("a", "e/x.wants/y") }, true},
		{"a new link", func() error { return os.Symlink("z", at("e/x.wants/z")) }, true},
		{"a new unit", func() error { return os.WriteFile(at("u/b.mount"), nil, 0o644) }, true},
		{"a unit that is gone", func() error { return os.Remove(at("u/b.mount")) }, true},
		{"a new directory", func() error { return os.Mkdir(at("e/b.mount.d"), 0o755) }, true},
		{"a directory of units", func() error { return os.MkdirAll(filepath.Join(root, "etc/systemd/system.control"), 0o755) }, true},
		{"no fstab", func() error { return os.Remove(at("etc/fstab")) }, true},
	} {
		time.Sleep(20 * time.Millisecond) // the clock of a filesystem's times is a coarse one
		if err := tc.change(); err != nil {
			t.Fatal(err)
		}
		after := sum(os.DirFS(root))
		if changed := after != before; changed != tc.changes {
			t.Errorf("%s: changed = %t", tc.name, changed)
		}
		before = after
	}

	// A tree without system calls and links is summed up too.
	tree := image(map[string]string{"etc/fstab": "x", "e/a.mount": "x"})
	for _, files := range []fs.FS{tree, noLinks{tree}} {
		before := sum(files)
		tree["etc/systemd/system/a.mount"].Data = append(tree["etc/systemd/system/a.mount"].Data, 'x')
		if sum(files) == before {
			t.Errorf("%T: a unit that grew is not seen", files)
		}
	}
	if _, err := etc.MountInputs(endless{t}); err == nil {
		t.Error("directories without an end are summed up")
	}
}
