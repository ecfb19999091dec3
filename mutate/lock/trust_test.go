package lock

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
)

// TestRootsDir: the directory of the machine's locks is root's.
func TestRootsDir(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	mkdir := func(dir string, owner int, mode os.FileMode) error {
		return errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, owner, 0), os.Chmod(dir, mode))
	}
	for name, make := range map[string]func(dir string) error{
		"of another user":       func(dir string) error { return mkdir(dir, 65534, 0o755) },
		"written by all":        func(dir string) error { return mkdir(dir, 0, 0o777) },
		"sticky":                func(dir string) error { return mkdir(dir, 0, 0o777|os.ModeSticky) },
		"written by a group":    func(dir string) error { return mkdir(dir, 0, 0o775) },
		"a link to a good one":  func(dir string) error { return os.Symlink("/run", dir) },
		"a link to what is not": func(dir string) error { return os.Symlink("nothing", dir) },
		"a file":                func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
	} {
		dir := filepath.Join(t.TempDir(), "locks")
		if err := make(dir); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Lstat(dir)
		if err != nil {
			t.Fatal(err)
		}
		err = rootsDir(dir)
		e, ok := err.(*UntrustedError)
		if !ok || e.Fault() != "host" || e.Hint() == "" {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, word := range []string{dir, "owner: user", fi.Mode().String()} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: error %q lacks %q", name, err, word)
			}
		}
	}
	dir := filepath.Join(t.TempDir(), "locks")
	for range 2 { // made, then found
		if err := rootsDir(dir); err != nil {
			t.Error(err)
		}
	}
}

// TestPipeIsNoLock, and nobody waits for its other end.
func TestPipeIsNoLock(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "lock")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Try(pipe, Exclusive); err == nil {
		t.Error("locked a pipe")
	}
}
