package store_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/store"
)

// TestClearGetsItsTurn though there is never a moment at which nobody uses the
// store, and lets the others have theirs again.
func TestClearGetsItsTurn(t *testing.T) {
	dir := open(t).Root()
	for range 6 {
		start(t, "users", dir)
	}
	s, notes := noting(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 3 {
		release, err := s.Clear(ctx)
		if err != nil {
			t.Fatalf("%v; it said %q", err, *notes)
		}
		if _, ok, err := s.TryLock("use"); ok || err != nil {
			t.Errorf("the store is cleared, and somebody else may use it: %v, %v", ok, err)
		}
		release()
		if release, err = s.Use(ctx); err != nil {
			t.Fatal(err)
		}
		release()
	}
}

// TestWaitingIsTold, with the process that is waited for.
func TestWaitingIsTold(t *testing.T) {
	dir := open(t).Root()
	user := start(t, "use", dir)
	s, notes := noting(t, dir)
	cleared := make(chan error, 1)
	go func() {
		release, err := s.Clear(t.Context())
		if err == nil {
			release()
		}
		cleared <- err
	}()
	// Whoever comes later waits behind it, and can give up.
	time.Sleep(100 * time.Millisecond)
	other, otherNotes := noting(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if release, err := other.Use(ctx); err == nil {
		release()
		t.Error("it did not wait for the one that came before")
	}
	user.finish(t)
	if err := <-cleared; err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("(process %d)", user.Process.Pid)
	if said := strings.Join(*notes, "; "); !strings.Contains(said, "another imgmut that uses the store") ||
		!strings.Contains(said, want) {
		t.Errorf("it said %q, want %q in it", said, want)
	}
	want = fmt.Sprintf("(process %d)", os.Getpid())
	if said := strings.Join(*otherNotes, "; "); !strings.Contains(said, "clears up") || !strings.Contains(said, want) {
		t.Errorf("the later one said %q, want %q in it", said, want)
	}
}

// TestUseInsideUse: an apply that imports its base uses the store twice, and
// must not wait for a Clear that waits for the apply.
func TestUseInsideUse(t *testing.T) {
	dir := open(t).Root()
	s, _ := noting(t, dir)
	release, err := s.Use(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	clearer, _ := noting(t, dir)
	cleared := make(chan error, 1)
	go func() {
		release, err := clearer.Clear(t.Context())
		if err == nil {
			release()
		}
		cleared <- err
	}()
	time.Sleep(100 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	inner, err := s.Use(ctx)
	if err != nil {
		t.Fatal(err)
	}
	inner()
	select {
	case err := <-cleared:
		t.Errorf("cleared while the store is used: %v", err)
	case <-time.After(150 * time.Millisecond):
	}
	release()
	if err := <-cleared; err != nil {
		t.Error(err)
	}
}

// noting opens a store that remembers what it tells the user.
func noting(t *testing.T, dir string) (*store.Store, *[]string) {
	t.Helper()
	notes := new([]string)
	s, err := store.Open(t.Context(), dir, func(line string) { *notes = append(*notes, line) })
	if err != nil {
		t.Fatal(err)
	}
	return s, notes
}
