package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/lock"
	"github.com/imgmut/imgmut/mutate/mount"
)

// Workspace is where one process works in the store. Nothing in it has a final
// name; Close removes it, and if the process dies the next run does.
type Workspace struct {
	store *Store
	dir   string
	lock  *os.File // the directory itself, locked for as long as the process lives
	// outside are the files elsewhere that have no name yet, by path, with the
	// directory of each.
	outside map[string]*os.Root
}

// Begin removes what crashed runs left and makes a workspace for this one.
func (s *Store) Begin(ctx context.Context) (*Workspace, error) {
	if err := s.sweep(ctx, shortPatience); err != nil {
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
		return &Workspace{store: s, dir: dir, lock: lock}, nil
	}
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// How long a sweep waits for the kernel to let go of the disks of dead runs: of
// all together, for what is still held then may be held for ever.
const (
	patience      = 10 * time.Second       // of whoever wants the room
	shortPatience = 500 * time.Millisecond // of all others: what they mount waits by itself, see [mount.Claim]
)

// errLater says that something of a dead run cannot be removed now. The next
// sweep tries again: it must not fail what this process is about to do.
var errLater = errors.New("left to the next sweep")

// Sweep removes what crashed runs left: run directories that nobody locks,
// files that never got a name, and objects without a record.
func (s *Store) Sweep(ctx context.Context) error { return s.sweep(ctx, patience) }

func (s *Store) sweep(ctx context.Context, patience time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tmp := filepath.Join(s.root, "tmp")
	runs, err := os.ReadDir(tmp) // not Glob: the path may hold its special characters
	if err != nil {
		return err
	}
	for _, run := range runs {
		if ctx.Err() != nil {
			return fmt.Errorf("sweep the store: %w", context.Cause(ctx))
		}
		if !strings.HasPrefix(run.Name(), "run-") {
			continue
		}
		dir := filepath.Join(tmp, run.Name())
		lock, err := lockDir(dir)
		if err != nil {
			continue // alive, or gone, or no run
		}
		err = sweepRun(ctx, waiting, dir)
		lock.Close()
		if err != nil && (ctx.Err() != nil || !errors.Is(err, errLater)) {
			return err
		}
	}
	// If somebody publishes just now, this is left to the next sweep.
	unlock, ok, err := lock.Try(s.publishLock(), lock.Exclusive)
	if err != nil || !ok {
		return err
	}
	defer unlock()
	for _, k := range []Kind{Bases, Layers, Images} {
		if err := s.sweepKind(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// sweepRun removes what a dead run left. It may have been killed while it had a
// guest frozen, and until its loop devices are free another fork of the same XFS
// cannot be mounted. The names in its directory are needed for that and for its
// files elsewhere, so the directory goes last, and only when all else is done.
// waiting is the context of waits for the kernel.
func sweepRun(ctx, waiting context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) { // the run ended by itself before its lock was taken
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.Type().IsRegular() && filepath.Ext(path) == ".raw":
			if held := mount.Recover(waiting, path); held != nil {
				err = errors.Join(err, fmt.Errorf("%w: %w", errLater, held))
			}
		case e.Type() == fs.ModeSymlink && strings.HasPrefix(e.Name(), outside):
			err = errors.Join(err, sweepOutside(path))
		}
	}
	if err != nil {
		return err
	}
	return removeRun(ctx, dir)
}

func (s *Store) sweepKind(ctx context.Context, k Kind) error {
	dir := filepath.Join(s.root, string(k))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, e := range entries {
		there[e.Name()] = true
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			return fmt.Errorf("sweep the store: %w", context.Cause(ctx))
		}
		if e.IsDir() {
			continue // none of ours
		}
		name := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))
		if !there[name+".json"] || !there[name+".raw"] {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

func (s *Store) publishLock() string { return filepath.Join(s.root, "locks", "publish") }

// Path names a file of this run; nothing is made.
func (w *Workspace) Path(name string) string { return filepath.Join(w.dir, name) }

// removeRun removes the directory of a run.
func removeRun(ctx context.Context, dir string) error {
	// Who was killed may leave a systemd-nspawn that dies a moment later, and
	// until then puts its lock file beside the image.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for {
		err := os.RemoveAll(dir)
		if !errors.Is(err, unix.ENOTEMPTY) || ctx.Err() != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Close removes the run's files. It may be called twice.
func (w *Workspace) Close() error {
	err := w.closeOutside()
	if err == nil {
		err = removeRun(context.Background(), w.dir)
	} // else the link stays, and the next run tries again
	w.lock.Close() // Double Close is harmless.
	return err
}

// Publish gives the run's file its final name as the object k/name, read-only,
// with a record, which is what makes it exist. extra are further files by
// extension. What was there of that name is replaced; if that fails for want
// of room, what was there still is.
func (s *Store) Publish(
	ctx context.Context, file string, k Kind, name string, rec any, extra map[string][]byte,
) (err error) {
	if err := checkName(name); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := errors.Join(f.Chmod(0o444), f.Sync()); err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	// All that can run out of room comes before the first rename.
	files, err := writeTemps(filepath.Dir(file), rec, extra)
	if err != nil {
		return fmt.Errorf("publish %s: %w", name, err)
	}
	defer func() {
		for _, tmp := range files {
			os.Remove(tmp) // Remove after Rename is harmless: the name is its own.
		}
	}()
	unlock, err := lock.Take(ctx, s.publishLock(), lock.Exclusive, nil)
	if err != nil {
		return err
	}
	defer unlock()
	// A crash must not leave a layer's new disk with its old record, which may say
	// that the disk is settled. An image may be left so: its record holds the
	// identity of its old file, so the new one is seen as changed and is made again.
	// To remove the record first would lose the old image to a rename that fails.
	if k == Layers {
		if err := os.Remove(s.Path(k, name, "json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Rename(file, s.Path(k, name, "raw")); err != nil {
		return err
	}
	for ext := range extra {
		if err := os.Rename(files[ext], s.Path(k, name, ext)); err != nil {
			return err
		}
	}
	if err := os.Rename(files["json"], s.Path(k, name, "json")); err != nil {
		return err
	}
	return syncDir(filepath.Join(s.root, string(k)))
}

// writeTemps writes the record and the extra files into dir under temporary
// names, which it gives by extension.
func writeTemps(dir string, rec any, extra map[string][]byte) (files map[string]string, err error) {
	b, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return nil, err
	}
	all := maps.Clone(extra)
	if all == nil {
		all = map[string][]byte{}
	}
	all["json"] = append(b, '\n')
	files = map[string]string{}
	for ext, b := range all {
		if files[ext], err = writeTemp(dir, b); err != nil {
			for _, tmp := range files {
				os.Remove(tmp)
			}
			return nil, err
		}
	}
	return files, nil
}

// Update changes the record of an object: it loads it into rec, in place of
// what that held, calls change, and saves it, while nobody else can. It is [ErrNotFound] if there is none.
func (s *Store) Update(ctx context.Context, k Kind, name string, rec any, change func() error) error {
	unlock, err := lock.Take(ctx, s.publishLock(), lock.Exclusive, nil)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.Load(k, name, rec); err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	files, err := writeTemps(filepath.Dir(s.Path(k, name, "json")), rec, nil)
	if err != nil {
		return err
	}
	if err := os.Rename(files["json"], s.Path(k, name, "json")); err != nil {
		return errors.Join(err, os.Remove(files["json"]))
	}
	return syncDir(filepath.Join(s.root, string(k)))
}

func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func writeTemp(dir string, b []byte) (name string, err error) {
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}
