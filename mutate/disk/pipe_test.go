package disk

import (
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/etc"
)

// treeWithPipe is a directory with a pipe in it that nobody writes to.
func treeWithPipe(t *testing.T) (dir *os.File, pipe string) {
	t.Helper()
	root := t.TempDir()
	pipe = filepath.Join(root, "pipe")
	if err := unix.Mkfifo(pipe, 0o666); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir, pipe
}

// inTime fails the test if something waits for somebody to write to a pipe.
func inTime(t *testing.T, pipe string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
		return
	case <-time.After(10 * time.Second):
		t.Error("it waits for somebody to write to a pipe")
	}
	for { // so that it ends
		if fd, err := unix.Open(pipe, unix.O_RDWR|unix.O_NONBLOCK, 0); err == nil {
			unix.Close(fd)
		}
		select {
		case <-done:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestPipeInATree: a pipe in place of a file is opened without waiting, and holds nothing.
func TestPipeInATree(t *testing.T) {
	dir, pipe := treeWithPipe(t)
	inTime(t, pipe, func() {
		f, err := TreeAt(dir).Open("pipe")
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if n, err := f.Read(make([]byte, 1)); n > 0 || err != io.EOF {
			t.Errorf("%d bytes are read, %v", n, err)
		}
	})
}

// TestWatchOfAPipe: what was looked at may be a pipe, or in place of a directory there may
// be one. To look again waits for nobody.
func TestWatchOfAPipe(t *testing.T) {
	for _, timeless := range []bool{false, true} {
		dir, pipe := treeWithPipe(t)
		w := newWatch()
		tree := w.of(dir, timeless)
		etc.Exists(tree, "pipe/x")
		inTime(t, pipe, func() {
			if w.changed(nil) {
				t.Errorf("timeless %t: what is below a pipe has changed", timeless)
			}
			f, err := tree.Open("pipe")
			if err != nil {
				t.Error(err)
				return
			}
			f.Read(make([]byte, 1))
			f.Close()
			w.changed(nil)
		})
	}
}

// TestWatchLeavesNothingOpen: each step of a recipe looks again at all that was looked at.
func TestWatchLeavesNothingOpen(t *testing.T) {
	dir, err := os.Open(watchedDir(t, map[string]string{"a/x": "", "b/x": "", "c/d/x": ""}))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	w := newWatch()
	tree := w.of(dir, false)
	for _, name := range []string{"a/x", "b/x", "c/d/x", "none/x"} {
		etc.Exists(tree, name)
	}
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which closes what nobody has
	before := open()
	for range 3 {
		if w.changed(nil) {
			t.Error("it has changed")
		}
	}
	if after := open(); after != before {
		t.Errorf("%d descriptors are open, and were %d", after, before)
	}
}

// TestWatchOfNoName: what can be no name in a tree is not there, at whatever look.
func TestWatchOfNoName(t *testing.T) {
	dir, err := os.Open(watchedDir(t, map[string]string{"a/a": "x", "etc/fstab": "x"}))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, name := range []string{"", "a/", "/etc/fstab", "../a", "a/../a/a", "a//a"} {
		w := newWatch()
		if _, err := w.of(dir, false).Stat(name); err == nil {
			t.Errorf("%q is there", name)
		}
		if w.changed(nil) {
			t.Errorf("%q: it has changed", name)
		}
	}
}
