package statcache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// walk asks for every file of the tree, in order, and stores the sum of those
// that are not known, as if they had been read at the time of reading. It gives
// the names of the ones that had to be read.
func walk(t *testing.T, cache *Cache, tree string, reading time.Time) (read []string) {
	t.Helper()
	top, err := os.Open(tree)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	end, err := cache.Begin(top)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	names, err := filepath.Glob(tree + "/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var want [32]byte
		copy(want[:], b)
		sum, ok := cache.Sum(&st)
		if ok && sum != want {
			t.Errorf("%s: the sum of other bytes", name)
		}
		if !ok {
			read = append(read, filepath.Base(name))
			cache.Store(&st, want, reading)
		}
	}
	return read
}

// tree is a tree of three files, and a time at which they are no longer new.
func tree(t *testing.T) (dir string, later time.Time) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		if err := os.WriteFile(dir+"/"+name, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, time.Now().Add(3 * time.Second)
}

func TestUnchanged(t *testing.T) {
	dir, later := tree(t)
	kept := t.TempDir() + "/inputs"
	if read := walk(t, New(kept), dir, later); len(read) != 3 {
		t.Fatalf("first %v are read, want all", read)
	}
	if read := walk(t, New(kept), dir, later); len(read) != 0 {
		t.Errorf("then %v are read, though nothing has changed", read)
	}
	for name, change := range map[string]func(string) error{
		"bytes":     func(f string) error { return os.WriteFile(f, []byte("B"), 0o644) },
		"size":      func(f string) error { return os.Truncate(f, 0) },
		"mode":      func(f string) error { return os.Chmod(f, 0o755) },
		"attribute": func(f string) error { return unix.Setxattr(f, "user.x", []byte("y"), 0) },
		"other file": func(f string) error {
			return errors.Join(os.WriteFile(f+"+", []byte("b"), 0o644), os.Rename(f+"+", f))
		},
		// The bytes change, and the times that a program can set are put back.
		"hidden": func(f string) error {
			fi, err := os.Stat(f)
			if err != nil {
				return err
			}
			return errors.Join(os.WriteFile(f, []byte("x"), 0o644), os.Chtimes(f, fi.ModTime(), fi.ModTime()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			time.Sleep(20 * time.Millisecond) // or the clock may not have moved
			if err := change(dir + "/b"); err != nil {
				t.Fatal(err)
			}
			if read := walk(t, New(kept), dir, later); fmt.Sprint(read) != "[b]" {
				t.Errorf("%v are read, want b alone", read)
			}
		})
	}
	t.Run("removed", func(t *testing.T) {
		if err := os.Remove(dir + "/a"); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if read := walk(t, New(kept), dir, later); len(read) != 0 {
				t.Errorf("%v are read, want none", read)
			}
		}
	})
}

// TestJustChanged: a change within the same tick of the clock as the reading
// would leave the same times.
func TestJustChanged(t *testing.T) {
	dir, _ := tree(t)
	kept := t.TempDir()
	fi, err := os.Stat(dir + "/c")
	if err != nil {
		t.Fatal(err)
	}
	if read := walk(t, New(kept), dir, fi.ModTime().Add(5*time.Millisecond)); len(read) != 3 {
		t.Fatalf("%v are read, want all", read)
	}
	if read := walk(t, New(kept), dir, fi.ModTime().Add(-time.Hour)); len(read) != 3 { // a clock that was put back
		t.Errorf("%v are read, want all: they were too young to be remembered", read)
	}
	if read := walk(t, New(kept), dir, fi.ModTime().Add(3*time.Second)); len(read) != 3 {
		t.Errorf("%v are read, want all", read)
	}
	if read := walk(t, New(kept), dir, fi.ModTime().Add(3*time.Second)); len(read) != 0 {
		t.Errorf("%v are read, want none", read)
	}
}

// TestDamaged: a file of the cache that is not whole counts as none.
func TestDamaged(t *testing.T) {
	dir, later := tree(t)
	kept := t.TempDir()
	walk(t, New(kept), dir, later)
	files, err := filepath.Glob(kept + "/*")
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v; want one file", files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte{}, whole...)
	flipped[len(magic)+50] ^= 1 // of a sum
	for name, b := range map[string][]byte{
		"cut": whole[:len(whole)-1], "flipped": flipped, "empty": nil,
		"an entry cut": append(whole[:len(magic)], whole[len(magic)+entrySize:]...),
	} {
		if err := os.WriteFile(files[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
		if read := walk(t, New(kept), dir, later); len(read) != 3 {
			t.Errorf("%s: %v are read, want all", name, read)
		}
	}
}

// TestBounded: the trees that were written last stay, and so does what another
// process is just writing.
func TestBounded(t *testing.T) {
	kept := t.TempDir()
	now := time.Now()
	for i := range maxTrees + 5 {
		name := fmt.Sprintf("%s/%d-1", kept, i)
		if err := errors.Join(os.WriteFile(name, nil, 0o600),
			os.Chtimes(name, now, now.Add(-time.Duration(i)*time.Minute-time.Minute))); err != nil {
			t.Fatal(err)
		}
	}
	for name, age := range map[string]time.Duration{".new-1": 0, ".new-2": 2 * time.Hour} {
		if err := errors.Join(os.WriteFile(kept+"/"+name, nil, 0o600),
			os.Chtimes(kept+"/"+name, now, now.Add(-age))); err != nil {
			t.Fatal(err)
		}
	}
	dir, later := tree(t)
	walk(t, New(kept), dir, later)
	entries, err := os.ReadDir(kept)
	if err != nil || len(entries) != maxTrees+1 {
		t.Errorf("%d files, %v; want %d", len(entries), err, maxTrees+1)
	}
	for name, there := range map[string]bool{
		"0-1": true, fmt.Sprintf("%d-1", maxTrees+4): false, ".new-1": true, ".new-2": false,
	} {
		if _, err := os.Stat(kept + "/" + name); (err == nil) != there {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNowhere: a cache that cannot be kept does no harm.
func TestNowhere(t *testing.T) {
	dir, later := tree(t)
	for range 2 {
		if read := walk(t, New(dir+"/a/inputs"), dir, later); len(read) != 3 { // below a file
			t.Errorf("%v are read, want all", read)
		}
	}
}
