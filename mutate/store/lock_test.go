package store_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"
)

func TestLockBetweenProcesses(t *testing.T) {
	s := open(t)
	other := start(t, "lock", s.Root(), "web")
	if _, ok, err := s.TryLock("web"); ok || err != nil {
		t.Errorf("held by another process, and TryLock = %v, %v", ok, err)
	}
	unlock, ok, err := s.TryLock("db")
	if !ok || err != nil {
		t.Fatalf("TryLock of another name = %v, %v", ok, err)
	}
	unlock()

	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, cause)
	defer cancel()
	if _, err := s.Lock(ctx, "web"); !errors.Is(err, cause) {
		t.Errorf("Lock = %v, want the cause of the context's end", err)
	}

	got := make(chan error, 1)
	go func() {
		unlock, err := s.Lock(t.Context(), "web")
		if err == nil {
			unlock()
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Errorf("held by another process, and Lock = %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	other.finish(t)
	if err := <-got; err != nil {
		t.Errorf("given back, and Lock = %v", err)
	}
}

func TestLockEndsWithItsProcess(t *testing.T) {
	s := open(t)
	start(t, "lock", s.Root(), "web").kill()
	unlock, ok, err := s.TryLock("web")
	if !ok || err != nil {
		t.Fatalf("the holder was killed, and TryLock = %v, %v", ok, err)
	}
	unlock()
}

func TestLockInsideOneProcess(t *testing.T) {
	s := open(t)
	unlock, err := s.Lock(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.TryLock("web"); ok || err != nil {
		t.Errorf("held, and TryLock = %v, %v", ok, err)
	}
	unlock()
	unlock, ok, err := s.TryLock("web")
	if !ok || err != nil {
		t.Fatalf("given back, and TryLock = %v, %v", ok, err)
	}
	unlock()
}

// TestClearLocksLeavesWhatIsHeld: another process works on an image, and the
// next to come waits for it though all locks were cleared meanwhile.
func TestClearLocksLeavesWhatIsHeld(t *testing.T) {
	s := open(t)
	other := start(t, "lock", s.Root(), "name-web")
	if err := s.ClearLocks(); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.TryLock("name-web"); ok || err != nil {
		t.Errorf("held by another process, and TryLock = %v, %v", ok, err)
	}
	other.finish(t)
	if err := s.ClearLocks(); err != nil {
		t.Fatal(err)
	}
	if exists(filepath.Join(s.Root(), "locks", "name-web")) {
		t.Error("the lock file is still there, and nobody holds it")
	}
}

// TestClearLocksGoesOn: behind what is no lock of an object there are others.
func TestClearLocksGoesOn(t *testing.T) {
	s := open(t)
	names := []string{"base-1", "gate", "layer-1", "name-db"}
	for _, name := range names {
		unlock, err := s.Lock(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		unlock()
	}
	if err := s.ClearLocks(); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if is, want := exists(filepath.Join(s.Root(), "locks", name)), name == "gate"; is != want {
			t.Errorf("%s is there: %v, want %v", name, is, want)
		}
	}
}
