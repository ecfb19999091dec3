package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Lock takes the lock of that name for this process alone, waiting for others
// to give it back, and returns the function that does. The lock ends with the
// process, however that ends (flock(2)).
func (s *Store) Lock(ctx context.Context, name string) (unlock func(), err error) {
	return LockFile(ctx, filepath.Join(s.root, "locks", name), nil)
}

// TryLock is [Store.Lock] without waiting: ok is false if another holds it.
func (s *Store) TryLock(name string) (unlock func(), ok bool, err error) {
	return tryLock(filepath.Join(s.root, "locks", name), unix.LOCK_EX)
}

// Use keeps objects from being removed until release is called. Any number
// of processes can use a store at once; [Store.Clear] waits for them.
func (s *Store) Use(ctx context.Context) (release func(), err error) {
	return waitLock(ctx, s.useLock(), unix.LOCK_SH)
}

// Clear waits until nobody uses the store, so that objects which nothing refers
// to are not about to be referred to. busy is called if there is a wait.
func (s *Store) Clear(ctx context.Context, busy func()) (release func(), err error) {
	return LockFile(ctx, s.useLock(), busy)
}

func (s *Store) useLock() string { return filepath.Join(s.root, "locks", "use") }

// ClearLocks removes the lock files of objects. It is for who holds
// the store by [Store.Clear]: nobody else can be about to take one.
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

// LockFile takes the lock that is the file path, made if need be; see
// [Store.Lock]. busy, if not nil, is called if there is a wait.
func LockFile(ctx context.Context, path string, busy func()) (unlock func(), err error) {
	unlock, ok, err := tryLock(path, unix.LOCK_EX)
	if ok || err != nil {
		return unlock, err
	}
	if busy != nil {
		busy()
	}
	return waitLock(ctx, path, unix.LOCK_EX)
}

// waitLock polls, because a flock(2) that waits cannot be given up when the
// context ends; the first tries are fast, as most locks are held for
// milliseconds.
func waitLock(ctx context.Context, path string, how int) (unlock func(), err error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		unlock, ok, err := tryLock(path, how)
		if ok || err != nil {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for lock %s: %w", path, context.Cause(ctx))
		case <-time.After(wait):
		}
	}
}

func tryLock(path string, how int) (unlock func(), ok bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if err == nil {
		return func() { f.Close() }, true, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, false, nil
	}
	return nil, false, fmt.Errorf("lock %s: %w", path, err)
}
