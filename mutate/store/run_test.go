package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/store"
)

func TestSweepClearsTheDeadAndSparesTheLiving(t *testing.T) {
	s := open(t)
	own := begin(t, s)
	living, dead := start(t, "run", s.Root()), start(t, "run", s.Root())
	dead.kill()
	if !exists(filepath.Join(dead.said[0], "work.raw")) {
		t.Fatal("a killed process cleaned up after itself")
	}
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exists(dead.said[0]) {
		t.Error("Sweep left the directory of a process that was killed")
	}
	if !exists(filepath.Join(living.said[0], "work.raw")) || !exists(filepath.Dir(own.Path("x"))) {
		t.Error("Sweep took a living run's directory")
	}
	living.finish(t)
	if exists(living.said[0]) {
		t.Error("a run that ended left its directory")
	}
}

// TestSweepHearsTheContext: a crash may leave as much as it likes.
func TestSweepHearsTheContext(t *testing.T) {
	s := open(t)
	dead := start(t, "run", s.Root())
	dead.kill()
	half := s.Path(store.Images, "half", "raw")
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("the user pressed ^C")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := s.Sweep(ctx); !errors.Is(err, cause) {
		t.Errorf("Sweep = %v, want the cause", err)
	}
	if !exists(dead.said[0]) || !exists(half) {
		t.Error("swept all the same")
	}
}

// TestOutside: what a run makes elsewhere goes with it, however it ends, unless
// it was given a name of its own.
func TestOutside(t *testing.T) {
	s := open(t)
	elsewhere := t.TempDir()
	living, dead := start(t, "run", s.Root(), elsewhere), start(t, "run", s.Root(), elsewhere)
	dead.kill()
	if !exists(dead.said[1]) {
		t.Fatal("a killed process cleaned up after itself")
	}
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exists(dead.said[1]) {
		t.Error("Sweep left a file of a process that was killed")
	}
	if !exists(living.said[1]) {
		t.Error("Sweep took a living run's file")
	}
	living.finish(t)
	if exists(living.said[1]) {
		t.Error("a run that ended left its file")
	}

	run := begin(t, s)
	f, err := run.Outside(elsewhere, ".#imgmut-*")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	kept := filepath.Join(elsewhere, "kept")
	if err := run.Deliver(f, kept); err != nil {
		t.Fatal(err)
	}
	if err := run.Close(); err != nil {
		t.Error(err)
	}
	if !exists(kept) {
		t.Error("Close took a file that had got its name")
	}
	if _, err := begin(t, s).Outside(filepath.Join(elsewhere, "nothing"), ".#imgmut-*"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Outside of no directory = %v, want ErrNotExist", err)
	}
}

// TestDeliverThatFails leaves what is there, and the file to the run.
func TestDeliverThatFails(t *testing.T) {
	run, elsewhere := begin(t, open(t)), t.TempDir()
	f, err := run.Outside(elsewhere, ".#imgmut-*")
	if err != nil {
		t.Fatal(err)
	}
	taken := filepath.Join(elsewhere, "taken", "by a directory")
	if err := os.MkdirAll(taken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := run.Deliver(f, filepath.Dir(taken)); err == nil {
		t.Error("delivered over a directory")
	}
	if err := run.Close(); err != nil {
		t.Error(err)
	}
	if exists(f.Name()) || !exists(taken) {
		t.Error("Close left the file, or took what was there")
	}
	if err := run.Deliver(f, filepath.Join(elsewhere, "new")); err == nil {
		t.Error("delivered a file that is closed")
	}
}

// TestSweepGoesOn: neither what is alive, nor what is none of its business, nor
// what cannot be removed keeps a sweep from the rest.
func TestSweepGoesOn(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	s := open(t)
	tmp, elsewhere := filepath.Join(s.Root(), "tmp"), t.TempDir()
	readOnly := t.TempDir()
	if err := os.Mkdir(filepath.Join(tmp, "a-directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	var living, dead []*process
	for range 4 { // their names come in any order
		living = append(living, start(t, "run", s.Root(), elsewhere))
		dead = append(dead, start(t, "run", s.Root(), elsewhere))
	}
	stuck := start(t, "run", s.Root(), readOnly)
	for _, p := range append(dead, stuck) { // once all are there, for each begins with a sweep
		p.kill()
	}
	// The file of one cannot be removed now.
	do(t, unix.Mount(readOnly, readOnly, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(readOnly, unix.MNT_DETACH) })
	do(t, unix.Mount("", readOnly, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	half := s.Path(store.Images, "half", "raw")
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range dead {
		if exists(p.said[0]) || exists(p.said[1]) {
			t.Errorf("Sweep left %s of a process that was killed", p.said)
		}
	}
	for _, p := range living {
		if !exists(filepath.Join(p.said[0], "work.raw")) || !exists(p.said[1]) {
			t.Errorf("Sweep took %s of a living process", p.said)
		}
	}
	if !exists(stuck.said[0]) {
		t.Error("Sweep forgot of a file that it could not remove")
	}
	if exists(half) || !exists(filepath.Join(tmp, "a-directory")) {
		t.Error("Sweep left a disk without a record, or took what is no run")
	}
	do(t, unix.Unmount(readOnly, 0))
	if err := s.Sweep(t.Context()); err != nil || exists(stuck.said[0]) || exists(stuck.said[1]) {
		t.Errorf("the next Sweep left what could be removed since: %v", err)
	}
}

// TestSweepWhileRunsEnd: a run may end by itself at any moment of a sweep.
func TestSweepWhileRunsEnd(t *testing.T) {
	s := open(t)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 300 {
				run, err := s.Begin(t.Context()) // which sweeps
				if err != nil {
					t.Error(err)
					return
				}
				if err := run.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestCloseWithMuchInTheRun: all goes, in whatever order the names come.
func TestCloseWithMuchInTheRun(t *testing.T) {
	s := open(t)
	run, elsewhere := begin(t, s), t.TempDir()
	for _, name := range []string{"base", "work.raw"} {
		if err := os.WriteFile(run.Path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := run.Outside(elsewhere, ".#imgmut-*")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	g, err := run.Outside(elsewhere, ".#imgmut-*")
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
	if err := os.Remove(g.Name()); err != nil { // somebody else did
		t.Fatal(err)
	}
	if err := run.Close(); err != nil {
		t.Error(err)
	}
	if exists(f.Name()) || exists(run.Path("base")) {
		t.Error("Close left something")
	}
}

// TestCloseWhileSomethingStillWrites: a process of the run that is about to end
// does not make it fail.
func TestCloseWhileSomethingStillWrites(t *testing.T) {
	run := begin(t, open(t))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i, start := 0, time.Now(); time.Since(start) < 100*time.Millisecond; i++ {
			_ = os.WriteFile(run.Path(fmt.Sprint(i)), nil, 0o600) // the directory goes at some moment
		}
	}()
	if err := run.Close(); err != nil {
		t.Error(err)
	}
	<-ended
}

func TestOpenAndBeginClearWhatACrashLeft(t *testing.T) {
	for name, next := range map[string]func(t *testing.T, s *store.Store){
		"Open":  func(t *testing.T, s *store.Store) { reopen(t, s.Root()) },
		"Begin": func(t *testing.T, s *store.Store) { begin(t, s) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			dead := start(t, "run", s.Root())
			dead.kill()
			next(t, s)
			if exists(dead.said[0]) {
				t.Error("the directory of a process that was killed is still there")
			}
		})
	}
}

// TestOpenLooksNoFurther: where no run has died there is nothing to sweep, and to open a store is cheap.
func TestOpenLooksNoFurther(t *testing.T) {
	s := open(t)
	half := s.Path(store.Images, "half", "raw")
	do(t, os.WriteFile(half, nil, 0o600))
	if reopen(t, s.Root()); !exists(half) {
		t.Error("Open swept the images")
	}
	if begin(t, s); exists(half) {
		t.Error("Begin left a disk without a record")
	}
}

// TestSweepInADirectoryOfAnyName: the path of a store is a name, not a pattern.
func TestSweepInADirectoryOfAnyName(t *testing.T) {
	s := openIn(t, filepath.Join(t.TempDir(), "a [b] *? \\ store"))
	dead := start(t, "run", s.Root())
	dead.kill()
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exists(dead.said[0]) {
		t.Error("the directory of a process that was killed is still there")
	}
}

// TestRecordIsTheCommitMark: what has no record does not exist, and goes.
func TestRecordIsTheCommitMark(t *testing.T) {
	s := open(t)
	mustPublish(t, s, begin(t, s), store.Bases, "whole", "disk")
	for _, k := range []store.Kind{store.Bases, store.Layers, store.Images} {
		for _, name := range []string{"half.raw", "half.sums", "half.v2.raw", ".new-123", "whole.v2.raw"} {
			if err := os.WriteFile(filepath.Join(s.Root(), string(k), name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Load(k, "half", &record{}); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: Load = %v, want ErrNotFound", k, err)
		}
	}
	if names, err := s.Names(store.Bases); err != nil || !slices.Equal(names, []string{"whole"}) {
		t.Errorf("Names = %v, %v", names, err)
	}
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[store.Kind][]string{
		store.Bases: {"whole.json", "whole.raw"}, store.Layers: nil, store.Images: nil,
	} {
		if got := files(t, s, k); !slices.Equal(got, want) {
			t.Errorf("%s: Sweep left %v, want %v", k, got, want)
		}
	}
}

// TestCrashWhilePublishing kills a process at some moment of a Publish, many times.
func TestCrashWhilePublishing(t *testing.T) {
	s := open(t)
	for range 12 {
		start(t, "crash", s.Root(), "k").kill()
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		names, err := s.Names(store.Layers)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, n := range names {
			want = append(want, n+".json", n+".raw")
			var rec record
			if err := s.Load(store.Layers, n, &rec); err != nil || rec.Text != "x" {
				t.Errorf("Load %s = %v, %+v", n, err, rec)
			}
		}
		slices.Sort(want)
		if got := files(t, s, store.Layers); !slices.Equal(got, want) {
			t.Errorf("after a crash and Sweep there are %v, want %v", got, want)
		}
		if left, err := os.ReadDir(filepath.Join(s.Root(), "tmp")); err != nil || len(left) != 0 {
			t.Errorf("left in tmp: %v, %v", left, err)
		}
	}
}

func TestSweepWaitsForNobody(t *testing.T) {
	s := open(t)
	publishing := start(t, "lock", s.Root(), "publish")
	half := s.Path(store.Layers, "half", "raw")
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !exists(half) {
		t.Error("Sweep took the disk of an object whose record is being written")
	}
	publishing.finish(t)
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if exists(half) {
		t.Error("Sweep left a disk without a record in a quiet store")
	}
}

func TestCloseTwice(t *testing.T) {
	s := open(t)
	run, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(run.Path("x"))
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("run directory: %v, %v", fi, err)
	}
	for range 2 {
		if err := run.Close(); err != nil {
			t.Error(err)
		}
	}
	if exists(dir) {
		t.Error("Close left the directory")
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
