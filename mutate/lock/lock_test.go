package lock_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/lock"
)

func TestModes(t *testing.T) {
	for _, tc := range []struct {
		held, wanted lock.Mode
		ok           bool
	}{
		{lock.Exclusive, lock.Exclusive, false},
		{lock.Exclusive, lock.Shared, false},
		{lock.Shared, lock.Exclusive, false},
		{lock.Shared, lock.Shared, true},
	} {
		path := filepath.Join(t.TempDir(), "l")
		unlock, ok, err := lock.Try(path, tc.held)
		if !ok || err != nil {
			t.Fatalf("Try of a free lock = %v, %v", ok, err)
		}
		second, ok, err := lock.Try(path, tc.wanted)
		if ok != tc.ok || err != nil {
			t.Errorf("held %d, Try %d = %v, %v", tc.held, tc.wanted, ok, err)
		}
		if ok {
			second()
		}
		unlock()
		if unlock, ok, err = lock.Try(path, tc.wanted); !ok || err != nil {
			t.Fatalf("given back, and Try = %v, %v", ok, err)
		}
		unlock()
	}
}

// TestTakeWaits until the lock is given back, and says once that it does.
func TestTakeWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	unlock, err := lock.Take(t.Context(), path, lock.Exclusive, func() { t.Error("busy, and nobody holds it") })
	if err != nil {
		t.Fatal(err)
	}
	busy := make(chan bool, 100)
	got := make(chan error, 1)
	go func() {
		unlock, err := lock.Take(t.Context(), path, lock.Exclusive, func() { busy <- true })
		if err == nil {
			unlock()
		}
		got <- err
	}()
	<-busy
	select {
	case err := <-got:
		t.Errorf("held, and Take = %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
	if len(busy) > 0 {
		t.Error("said more than once that it waits")
	}
}

func TestTakeGivesUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	unlock, _, err := lock.Try(path, lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, cause)
	defer cancel()
	if _, err := lock.Take(ctx, path, lock.Shared, nil); !errors.Is(err, cause) {
		t.Errorf("Take = %v, want the cause of the context's end", err)
	}
}

// TestTakeOfAFreeLockHearsTheContext: a loop that takes one lock after another
// has no other place to end.
func TestTakeOfAFreeLockHearsTheContext(t *testing.T) {
	cause := errors.New("the user pressed ^C")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	path := filepath.Join(t.TempDir(), "lock")
	if _, err := lock.Take(ctx, path, lock.Exclusive, nil); !errors.Is(err, cause) {
		t.Errorf("took a free lock though the context had ended: %v, want the cause", err)
	}
}

// TestNoLock: where no lock file can be, and where somebody put a link in its
// place, nothing is locked.
func TestNoLock(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "none", "lock"), link} {
		if _, err := lock.Take(t.Context(), path, lock.Exclusive, nil); err == nil {
			t.Errorf("locked %s", path)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "elsewhere")); err == nil {
		t.Error("made a file where a link led")
	}
}

// TestRemove: a lock file goes only while nobody holds it, and whoever has just
// opened it then does not believe to hold the lock.
func TestRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	unlock, _, err := lock.Try(path, lock.Shared)
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := lock.Try(path, lock.Exclusive); ok || err != nil {
		t.Errorf("held by another, and Try after Remove = %t, %v", ok, err)
	}
	unlock()
	if err := lock.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of a lock that nobody holds is still there: %v", err)
	}
}

// TestOneHolderWhileFilesAreRemoved: at no time have two the lock.
func TestOneHolderWhileFilesAreRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	var holders atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				unlock, err := lock.Take(t.Context(), path, lock.Exclusive, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold the lock", n)
				}
				holders.Add(-1)
				unlock()
				if err := lock.Remove(path); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
