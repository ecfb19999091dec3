package store

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"github.com/imgmut/imgmut/mutate/lock"
)

// Use keeps objects from being removed until release is called. Any number
// of processes can use a store at once; [Store.Clear] waits for them, and they
// wait for a Clear that came before them.
func (s *Store) Use(ctx context.Context) (release func(), err error) {
	s.using.Lock()
	defer s.using.Unlock()
	// A process that uses the store already goes straight in: it would wait for
	// a Clear that waits for it.
	if s.users == 0 {
		pass, err := s.await(ctx, s.gateLock(), lock.Shared, "that clears up in the store")
		if err != nil {
			return nil, err
		}
		defer pass()
	}
	unlock, err := lock.Take(ctx, s.useLock(), lock.Shared, nil)
	if err != nil {
		return nil, err
	}
	s.users++
	return func() {
		s.using.Lock()
		defer s.using.Unlock()
		s.users--
		unlock()
	}, nil
}

// Clear waits until nobody uses the store, so that objects which nothing refers
// to are not about to be referred to. It tells whom it waits for. Whoever wants
// to use the store meanwhile waits behind it at the gate: where there is always
// a build under way, there would never be a moment without one.
func (s *Store) Clear(ctx context.Context) (release func(), err error) {
	open, err := s.await(ctx, s.gateLock(), lock.Exclusive, "that clears up in the store")
	if err != nil {
		return nil, err
	}
	unlock, err := s.await(ctx, s.useLock(), lock.Exclusive, "that uses the store")
	if err != nil {
		open()
		return nil, err
	}
	return func() { unlock(); open() }, nil
}

func (s *Store) useLock() string { return filepath.Join(s.root, "locks", "use") }

// gateLock is passed by those who want to use the store, and held by the one
// that wants it for itself.
func (s *Store) gateLock() string { return filepath.Join(s.root, "locks", "gate") }

// worthAWord is how long a lock is waited for in silence.
const worthAWord = 50 * time.Millisecond

// await takes a lock, and tells who has it if that takes more than a moment.
func (s *Store) await(ctx context.Context, path string, m lock.Mode, what string) (unlock func(), err error) {
	moment, cancel := context.WithTimeout(ctx, worthAWord)
	defer cancel()
	unlock, err = lock.Take(moment, path, m, nil)
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return unlock, err
	}
	line := "waiting for another imgmut " + what
	if who := lock.Holders(path); len(who) > 0 {
		line += ": " + strings.Join(who, ", ")
	}
	s.note(line)
	return lock.Take(ctx, path, m, nil)
}
