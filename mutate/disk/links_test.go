package disk_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
)

// TestLinksAreTold: a link is told as it is, and those on the way to it lead nowhere
// but inside the tree.
func TestLinksAreTold(t *testing.T) {
	root := t.TempDir()
	for name, target := range map[string]string{
		"absolute": "/dir/file", "relative": "../x", "dangling": "/none", "out": "/../..", "dir/up": "/", "loop": "loop",
	} {
		name = filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.Symlink(target, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "dir/file"), []byte("text"), 0o640); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var tree fs.ReadLinkFS = disk.TreeAt(dir)
	for name, want := range map[string]string{
		"absolute": "/dir/file", "relative": "../x", "dangling": "/none", "loop": "loop", "out/dir/up": "/", "dir/up/out/absolute": "/dir/file",
	} {
		if got, err := tree.ReadLink(name); got != want || err != nil {
			t.Errorf("ReadLink(%s) = %q, %v, want %q", name, got, err, want)
		}
		if fi, err := tree.Lstat(name); err != nil || fi.Mode().Type() != fs.ModeSymlink {
			t.Errorf("Lstat(%s) = %v, %v", name, fi, err)
		}
	}
	for _, name := range []string{"dir/file", "dir", ".", "none", "loop/x", "/absolute", "../x"} {
		if got, err := tree.ReadLink(name); err == nil {
			t.Errorf("ReadLink(%s) = %q", name, got)
		}
	}
	if fi, err := tree.Lstat("out/dir/file"); err != nil || fi.Mode() != 0o640 || fi.Size() != 4 {
		t.Errorf("Lstat of a file = %v, %v", fi, err)
	}
	if _, err := tree.Lstat("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Lstat of nothing = %v", err)
	}
}

func TestFATHasNoLinks(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	f, v := fat(t, "12", 2<<20, map[string]string{"file": "text"})
	tree := openTree(t, v, f, disk.ReadOnly)
	if fi, err := tree.Lstat("file"); err != nil || fi.Size() != 4 {
		t.Errorf("Lstat = %v, %v", fi, err)
	}
	if got, err := tree.ReadLink("file"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("ReadLink = %q, %v, want %v", got, err, fs.ErrInvalid)
	}
}
