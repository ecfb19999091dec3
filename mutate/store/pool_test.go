package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/store"
)

func TestPoolWhereReflinksDoNotWork(t *testing.T) {
	dir := ext4Dir(t)
	var notes []string
	s, err := store.Open(t.Context(), dir, func(line string) { notes = append(notes, line) })
	if err != nil {
		t.Fatal(err)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], filepath.Join(dir, "pool.xfs")) || strings.Contains(notes[0], "\n") {
		t.Errorf("notes %q, want one line that names the pool", notes)
	}
	if want := filepath.Join(dir, "pool"); s.Root() != want {
		t.Errorf("Root is %s, want %s", s.Root(), want)
	}
	if err := reflink.Probe(s.Root()); err != nil {
		t.Errorf("the pool cannot reflink: %v", err)
	}
	list := mounts(t, dir)
	if len(list) != 1 {
		t.Fatalf("mounts %q, want one", list)
	}
	for _, option := range []string{"noatime", "nodev", "nosuid", "discard"} {
		if !strings.Contains(list[0], option) {
			t.Errorf("mounted without %s: %s", option, list[0])
		}
	}
	fi, err := os.Stat(filepath.Join(dir, "pool.xfs"))
	if err != nil {
		t.Fatal(err)
	}
	if used := fi.Sys().(*syscall.Stat_t).Blocks * 512; fi.Mode() != 0o600 || used > 256<<20 || used > fi.Size()/4 {
		t.Errorf("pool.xfs has mode %v and occupies %d MiB of %d", fi.Mode(), used>>20, fi.Size()>>20)
	}
	run, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mustPublish(t, s, run, store.Layers, "k", "disk")
	if err := run.Close(); err != nil { // it holds the pool
		t.Fatal(err)
	}

	t.Run("the second time is silent", func(t *testing.T) { holdsLayer(t, dir) })
	t.Run("a reboot mounts it again", func(t *testing.T) {
		for range 15 { // the device of the last mount may take its time to go
			unmount(t, filepath.Join(dir, "pool"))
			holdsLayer(t, dir)
		}
	})
	t.Run("by a relative path", func(t *testing.T) {
		t.Chdir(filepath.Dir(dir))
		holdsLayer(t, filepath.Base(dir))
	})
	t.Run("free is bounded by the filesystem below", func(t *testing.T) {
		s := reopen(t, dir)
		free, err := s.Free()
		if below := available(t, dir); err != nil || free > below+64<<20 || free > available(t, s.Root()) {
			t.Errorf("Free = %d, %v; the pool has %d, below are %d", free, err, available(t, s.Root()), below)
		}
	})
}

// TestPoolIsBoundedByTheFilesystemBelow: the pool promises more than there is.
func TestPoolIsBoundedByTheFilesystemBelow(t *testing.T) {
	dir := ext4Dir(t)
	s, err := store.Open(t.Context(), dir, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	// Others fill the filesystem below until it has less than the pool shows.
	hog, err := os.Create(filepath.Join(dir, "hog"))
	if err != nil {
		t.Fatal(err)
	}
	defer hog.Close()
	below, pool := available(t, dir), available(t, s.Root())
	if err := unix.Fallocate(int(hog.Fd()), 0, 0, max(below-pool, 0)+1<<30); err != nil {
		t.Fatal(err)
	}
	free, err := s.Free()
	below, pool = available(t, dir), available(t, s.Root())
	if err != nil || below >= pool || free > below+64<<20 {
		t.Errorf("Free = %d, %v; the pool shows %d, below are %d", free, err, pool, below)
	}
}

// TestPoolGrows: when there is not room enough in it, and the disk has more.
func TestPoolGrows(t *testing.T) {
	dir := ext4Dir(t)
	hog, err := os.Create(filepath.Join(dir, "hog"))
	if err != nil {
		t.Fatal(err)
	}
	defer hog.Close()
	before := available(t, dir)
	do(t, unix.Fallocate(int(hog.Fd()), 0, 0, before-3<<30)) // the pool gets a share of what is left
	var notes []string
	s, err := store.Open(t.Context(), dir, func(line string) { notes = append(notes, line) })
	if err != nil {
		t.Fatal(err)
	}
	run := begin(t, s)
	mustPublish(t, s, run, store.Layers, "layer", "disk")
	do(t, run.Close())
	if free, err := s.Room(t.Context(), 5<<30); err != nil || free >= 3<<30 {
		t.Errorf("on a disk that is as full: %d are free, %v", free, err)
	}
	do(t, hog.Truncate(0))
	if free, err := s.Room(t.Context(), 1<<30); err != nil || free >= 3<<30 {
		t.Errorf("it has enough: %d are free, %v", free, err)
	}
	if len(notes) != 1 { // that it was made
		t.Errorf("notes %q", notes)
	}
	if free, err := s.Room(t.Context(), 5<<30); err != nil || free < 5<<30 || free > before {
		t.Errorf("on a disk with more: %d are free, %v", free, err)
	}
	if len(notes) != 2 || !strings.Contains(notes[1], "may grow to") {
		t.Errorf("notes %q", notes)
	}
	do(t, s.Load(store.Layers, "layer", &record{}))
	unmount(t, filepath.Join(dir, "pool"))
	again := reopen(t, dir)
	if free, err := again.Free(); err != nil || free < 5<<30 {
		t.Errorf("mounted again: %d are free, %v", free, err)
	}
}

func TestPoolIsMadeOnce(t *testing.T) {
	dir := ext4Dir(t)
	var peers []*process
	for range 4 {
		peers = append(peers, start(t, "open", dir))
	}
	for _, p := range peers {
		p.stdin.Close() // all at once
	}
	notes := 0
	for _, p := range peers {
		said := p.finish(t)
		if len(said) > 1 {
			notes++
		}
		if len(said) == 0 || said[len(said)-1] != "root "+filepath.Join(dir, "pool") {
			t.Errorf("a process says %q", said)
		}
	}
	if notes != 1 {
		t.Errorf("%d of them made the pool", notes)
	}
	if list := mounts(t, dir); len(list) != 1 {
		t.Errorf("mounts %q, want one", list)
	}
}

// TestPoolIsMountedOnce: after a reboot many find it unmounted.
func TestPoolIsMountedOnce(t *testing.T) {
	dir := ext4Dir(t)
	if _, err := store.Open(t.Context(), dir, func(string) {}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		unmount(t, filepath.Join(dir, "pool"))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := store.Open(t.Context(), dir, nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if list := mounts(t, dir); len(list) != 1 {
			t.Fatalf("mounts %q, want one", list)
		}
	}
}

// TestPoolAfterACrash: a pool has its name when it is whole.
func TestPoolAfterACrash(t *testing.T) {
	dir := ext4Dir(t)
	if err := os.WriteFile(filepath.Join(dir, "pool.xfs.new"), []byte("half a filesystem"), 0o600); err != nil {
		t.Fatal(err)
	}
	notes := 0
	if _, err := store.Open(t.Context(), dir, func(string) { notes++ }); err != nil || notes != 1 {
		t.Fatalf("Open = %v, %d notes", err, notes)
	}
	if exists(filepath.Join(dir, "pool.xfs.new")) {
		t.Error("what the crash left is still there")
	}
}

func TestPoolWithoutItsTools(t *testing.T) {
	dir := ext4Dir(t)
	t.Setenv("PATH", t.TempDir())
	_, err := store.Open(t.Context(), dir, func(line string) { t.Errorf("note: %s", line) })
	if fault.Of(err) != fault.Host || !strings.Contains(err.Error(), "mkfs.xfs is not installed") {
		t.Errorf("Open = %v, want it to miss mkfs.xfs", err)
	}
	if exists(filepath.Join(dir, "pool.xfs")) {
		t.Error("left a pool that holds no filesystem")
	}
}

// TestPoolNeedsRoom opens a store where less is free than a pool is worth.
func TestPoolNeedsRoom(t *testing.T) {
	ext4Dir(t) // for its needs
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m,mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmount(t, dir) })
	_, err := store.Open(t.Context(), dir, func(line string) { t.Errorf("note: %s", line) })
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Open = %v, want ENOSPC", err)
	}
	if exists(filepath.Join(dir, "pool.xfs")) || exists(filepath.Join(dir, "pool.xfs.new")) {
		t.Error("left a pool")
	}
}

// holdsLayer opens the store, silently, and finds the layer in its one pool.
func holdsLayer(t *testing.T, dir string) {
	t.Helper()
	s := reopen(t, dir)
	if err := s.Load(store.Layers, "k", &record{}); err != nil {
		t.Error(err)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if list := mounts(t, abs); len(list) != 1 {
		t.Errorf("mounts %q, want one", list)
	}
}

func available(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}
