package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Run is one process's working room in the store. Nothing in it has a final
// name; Close removes it, and if the process dies the next run does.
type Run struct {
	store *Store
	dir   string
	lock  *os.File // the directory itself, locked: a sign of life
}

// Begin removes what crashed runs left and makes working room for this one.
func (s *Store) Begin(ctx context.Context) (*Run, error) {
	if err := s.Sweep(); err != nil {
		return nil, fmt.Errorf("clear what an earlier run left: %w", err)
	}
	for {
		dir, err := os.MkdirTemp(filepath.Join(s.root, "tmp"), "run-")
		if err != nil {
			return nil, err
		}
		lock, err := lockDir(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EWOULDBLOCK) {
			continue // another run swept it away before it was locked
		}
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(dir); err != nil {
			lock.Close()
			continue
		}
		return &Run{s, dir, lock}, nil
	}
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// Sweep removes what crashed runs left: run directories that nobody locks,
// files that never got a name, and objects without a record.
func (s *Store) Sweep() error {
	runs, err := filepath.Glob(filepath.Join(s.root, "tmp", "run-*"))
	if err != nil {
		return err
	}
	for _, dir := range runs {
		lock, err := lockDir(dir)
		if err != nil {
			continue // alive, or gone
		}
		err = os.RemoveAll(dir)
		lock.Close()
		if err != nil {
			return err
		}
	}
	// Publishing holds the lock shared between the two renames; whoever is at
	// it now will finish, and the next sweep sees a quiet store.
	unlock, ok, err := tryLock(s.publishLock(), unix.LOCK_EX)
	if err != nil || !ok {
		return err
	}
	defer unlock()
	for _, k := range []Kind{Bases, Layers, Images} {
		if err := s.sweepKind(k); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) sweepKind(k Kind) error {
	dir := filepath.Join(s.root, string(k))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	recorded := map[string]bool{}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			recorded[name] = true
		}
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))
		if strings.HasPrefix(e.Name(), ".new-") || !recorded[name] {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

func (s *Store) publishLock() string { return filepath.Join(s.root, "locks", "publish") }

// Path names a file of this run; nothing is made.
func (r *Run) Path(name string) string { return filepath.Join(r.dir, name) }

// Close removes the run's files. It may be called twice.
func (r *Run) Close() error {
	err := os.RemoveAll(r.dir)
	r.lock.Close() // Double Close is harmless.
	return err
}

// Publish gives the run's file its final name as the object k/name, read-only,
// and then writes its record, which is what makes it exist. extra are further
// files by extension. What was there of that name is replaced.
func (s *Store) Publish(ctx context.Context, file string, k Kind, name string, rec any, extra map[string][]byte) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := errors.Join(f.Chmod(0o444), f.Sync()); err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	unlock, err := waitLock(ctx, s.publishLock(), unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Rename(file, s.Path(k, name, "raw")); err != nil {
		return err
	}
	for ext, b := range extra {
		if err := s.writeFile(k, name, ext, b); err != nil {
			return err
		}
	}
	return s.saveLocked(k, name, rec)
}

// Save replaces the record of an object.
func (s *Store) Save(ctx context.Context, k Kind, name string, rec any) error {
	unlock, err := waitLock(ctx, s.publishLock(), unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer unlock()
	return s.saveLocked(k, name, rec)
}

func (s *Store) saveLocked(k Kind, name string, rec any) error {
	b, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	if err := s.writeFile(k, name, "json", append(b, '\n')); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Join(s.root, string(k)))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func (s *Store) writeFile(k Kind, name, ext string, b []byte) error {
	f, err := os.CreateTemp(filepath.Join(s.root, string(k)), ".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.Path(k, name, ext))
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", s.Path(k, name, ext), err)
	}
	return nil
}
