package store

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/imgmut/imgmut/mutate/lock"
)

// Lock takes the lock of that name for this process alone, waiting for others
// to give it back, and returns the function that does. The lock ends with the
// process, however that ends (flock(2)).
func (s *Store) Lock(ctx context.Context, name string) (unlock func(), err error) {
	return lock.Take(ctx, filepath.Join(s.root, "locks", name), lock.Exclusive, nil)
}

// TryLock is [Store.Lock] without waiting: ok is false if another holds it.
func (s *Store) TryLock(name string) (unlock func(), ok bool, err error) {
	return lock.Try(filepath.Join(s.root, "locks", name), lock.Exclusive)
}

// Use keeps objects from being removed until release is called. Any number
// of processes can use a store at once; [Store.Clear] waits for them.
func (s *Store) Use(ctx context.Context) (release func(), err error) {
	return lock.Take(ctx, s.useLock(), lock.Shared, nil)
}

// Clear waits until nobody uses the store, so that objects which nothing refers
// to are not about to be referred to. busy is called if there is a wait.
func (s *Store) Clear(ctx context.Context, busy func()) (release func(), err error) {
	return lock.Take(ctx, s.useLock(), lock.Exclusive, busy)
}

func (s *Store) useLock() string { return filepath.Join(s.root, "locks", "use") }

// ClearLocks removes the lock files of objects. The caller holds the store by
// [Store.Clear], so nobody else can be about to take one.
func (s *Store) ClearLocks() error {
	dir := filepath.Join(s.root, "locks")
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		// All have a kind before their name, but for the store's own two.
		if !strings.Contains(f.Name(), "-") {
			continue
		}
		if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	return nil
}
