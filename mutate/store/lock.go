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

// ClearLocks removes the lock files of objects that nobody holds: an image may
// be worked on, or waited for, without the store being in use.
func (s *Store) ClearLocks() error {
	dir := filepath.Join(s.root, "locks")
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		// All have a kind before their name, but for the store's own.
		if f.IsDir() || !strings.Contains(f.Name(), "-") {
			continue
		}
		if err := lock.Remove(filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	return nil
}
