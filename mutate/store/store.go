// Package store is the directory that holds bases, layers, images and their
// records, on a filesystem that can reflink.
//
//	<store>/lock            held while the pool is made or mounted
//	<store>/pool.xfs        the pool, only where <store> itself cannot reflink
//	<store>/pool/           where it is mounted
//	<root>/bases/           imported raw images, named by content digest
//	<root>/layers/          whole disks after one step, named by key
//	<root>/images/          finished images, named by the user
//	<root>/tmp/<run>/       what a living run works on, and links to its files elsewhere
//	<root>/failed-*.raw     what --keep-failed kept
//	<root>/locks/           lock files
//	<root>/inputs/          sums of recipes' files that have not changed; may go at any time
//	<root>/downloads/       what was fetched of files, until all of it is here; may go when nobody uses the store
//	<root>/containers/      container images, as commits of ostree: see package bootc
//
// root is <store> or <store>/pool. An object is NAME.raw and its record
// NAME.json; the record is written last and removed first, so an object exists
// when its record does (the commit mark). Objects are published by fsync,
// rename, fsync of the directory: without the first fsync a crash can publish
// a layer that silently equals its parent (seen on XFS).
//
// Any number of processes use one store at once. Each works in its own run
// directory, on which it holds a lock; a run directory that nobody locks, and
// an object without a record, are what a crash left, and the next run removes
// them. There is no database and no daemon.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/lock"
	"github.com/imgmut/imgmut/mutate/reflink"
)

// ErrNotFound says that the store has no object of that name.
var ErrNotFound = fault.New(fault.NotFound, "", "not found in the store")

// ErrNoPlace says that a store cannot be where the user wants it.
var ErrNoPlace = fault.New(fault.Host, "choose another place with --store or $IMGMUT_STORE", "there can be no store")

// Kind is a kind of object: a directory of the store.
type Kind string

// The kinds of objects.
const (
	Bases  Kind = "bases"
	Layers Kind = "layers"
	Images Kind = "images"
)

// inputs is the directory of [Store.Inputs], downloads that of [Store.Download].
const (
	inputs    = "inputs"
	downloads = "downloads"
)

// Store is an open store. Its methods may be used from many goroutines.
type Store struct {
	dir  string // what the user named
	root string // where the objects are: dir or its mounted pool
	note func(string)

	using sync.Mutex
	users int // how often this process uses the store, see Use
}

// Exists says whether there is a store in dir, or the beginning of one. Where
// that cannot be seen there may be one: [Open] says what is in the way.
func Exists(dir string) bool {
	for _, name := range []string{"pool.xfs", string(Layers)} {
		_, err := os.Stat(filepath.Join(dir, name))
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return true
		}
	}
	return false
}

// Open opens the store in dir and makes what is missing of it. Where dir's
// filesystem cannot reflink it makes a pool, a sparse XFS file, and mounts it.
// note is told, in a line each, what the user should know: that a pool is made,
// and later whom the store waits for.
func Open(ctx context.Context, dir string, note func(string)) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	// Loop devices name files by their real path.
	if dir, err = settle(dir); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := trustPool(dir); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{dir: dir, root: dir, note: note}
	if err := s.findRoot(ctx, note); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	if err := s.makeDirs(); err != nil {
		return nil, err
	}
	// A crash leaves its run directory, so there is nothing to sweep where there
	// is none, and a run that changes nothing need not look further.
	if runs, err := os.ReadDir(filepath.Join(s.root, "tmp")); err != nil || len(runs) == 0 {
		return s, err
	}
	return s, s.sweep(ctx, shortPatience)
}

// findRoot decides where the objects are. The answer is on the disk already
// on every run but the first, so that a run that changes nothing probes
// nothing: a directory of objects, or a pool.
func (s *Store) findRoot(ctx context.Context, note func(string)) error {
	if _, err := os.Lstat(s.poolFile()); err == nil {
		return s.mountPool(ctx)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Lstat(filepath.Join(s.dir, string(Layers))); err == nil {
		return nil
	}
	err := reflink.Probe(s.dir)
	if errors.Is(err, reflink.ErrUnsupported) {
		return s.makePool(ctx, note)
	}
	return err
}

// objectDirs are the directories of objects, and of what it takes to make them.
var objectDirs = []string{string(Bases), string(Layers), string(Images), "tmp", "locks", inputs, downloads}

// makeDirs makes the directories of objects. A pool may have come with some.
func (s *Store) makeDirs() error {
	if err := trustPart(s.root, fs.ModeDir); err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	for _, dir := range objectDirs {
		dir = filepath.Join(s.root, dir)
		// Images hold password hashes. /var/lib/machines is as private.
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("open store: %w", err)
		}
		if err := trustPart(dir, fs.ModeDir); err != nil {
			return fmt.Errorf("open store: %w", err)
		}
	}
	return nil
}

// Dir is the directory that the user named, by its real path.
func (s *Store) Dir() string { return s.dir }

// Root is the directory with the objects; it is on a filesystem that can
// reflink.
func (s *Store) Root() string { return s.root }

// Inputs is the directory for sums of recipes' files, which save reading those
// that have not changed. What is in it may go at any time.
func (s *Store) Inputs() string { return filepath.Join(s.root, inputs) }

// Download is where what was fetched of a file is kept until all of it is here, so that
// another run can go on. Whoever fetches it holds a lock.
func (s *Store) Download(sum string) string { return filepath.Join(s.root, downloads, sum) }

// Containers is the directory of container images, which may not be there yet. Who adds to
// it holds a lock, and nobody may use the store when something is removed from it.
func (s *Store) Containers() string { return filepath.Join(s.root, "containers") }

// DropDownloads removes what was fetched in part. Nobody may use the store.
func (s *Store) DropDownloads() error {
	dir := filepath.Join(s.root, downloads)
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
	}
	return err
}

// Path is where the file of an object is or would be: ext is "raw" for the
// disk and "json" for the record.
func (s *Store) Path(k Kind, name, ext string) string {
	return filepath.Join(s.root, string(k), name+"."+ext)
}

// Kept is the file in which what failed of an image is kept for its user. It
// is no object; [Store.DropKept] removes it.
func (s *Store) Kept(name string) string { return filepath.Join(s.root, "failed-"+name+".raw") }

// DropKept removes what was kept, and says what that was. With dryRun it only
// says so.
func (s *Store) DropKept(dryRun bool) ([]string, error) {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return nil, err
	}
	kept := []string{} // not missing, for JSON
	for _, e := range entries {
		if e.IsDir() || !strings.HasPrefix(e.Name(), "failed-") || !strings.HasSuffix(e.Name(), ".raw") {
			continue
		}
		kept = append(kept, filepath.Join(s.root, e.Name()))
		if !dryRun {
			if err := os.Remove(filepath.Join(s.root, e.Name())); err != nil {
				return kept, err
			}
		}
	}
	return kept, nil
}

// checkName keeps names inside their directory, and apart from temporary files.
func checkName(name string) error {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q cannot be the name of an object: %w", name, ErrNotFound)
	}
	return nil
}

// Names lists the objects of a kind, sorted.
func (s *Store) Names(k Kind) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.root, string(k)))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	return names, nil
}

// Remove removes an object; it is gone when its record is. Removing what is
// not there is [ErrNotFound].
func (s *Store) Remove(ctx context.Context, k Kind, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	// Alone: else it could take the disk of an object of that name which is
	// published meanwhile, and leave its record. Publishing takes a moment.
	unlock, err := lock.Take(ctx, s.publishLock(), lock.Exclusive, nil)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.Remove(s.Path(k, name, "json")); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s %s: %w", strings.TrimSuffix(string(k), "s"), name, ErrNotFound)
	} else if err != nil {
		return err
	}
	for _, ext := range []string{"raw", "sums"} {
		if err := os.Remove(s.Path(k, name, ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Free tells how many bytes can still be written. A pool is a sparse file, so
// it has no more than the filesystem under it.
func (s *Store) Free() (int64, error) {
	inRoot, err := freeIn(s.root)
	if err != nil {
		return 0, err
	}
	below, err := freeIn(s.dir)
	return min(inRoot, below), err
}

// Room is [Store.Free], for one who wants to write that much. A pool that is too small
// for it grows, if the disk has room.
func (s *Store) Room(ctx context.Context, bytes int64) (free int64, err error) {
	free, err = s.Free()
	if err != nil || free >= bytes || s.root == s.dir {
		return free, err
	}
	if err := s.growPool(ctx); err != nil {
		return 0, err
	}
	return s.Free()
}

// freeIn tells how many bytes can be written to a filesystem.
func freeIn(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("ask for free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// Used tells how many bytes of the filesystem with the objects are in use, once
// what was removed before has really been freed: btrfs does that when it
// commits, XFS after a moment and from the moment it is asked.
func (s *Store) Used(ctx context.Context) (int64, error) {
	if err := syncFS(s.root); err != nil {
		return 0, fmt.Errorf("sync the store: %w", err)
	}
	var last int64
	for polls, same := 0, 0; same < 3 && polls < 100 && ctx.Err() == nil; polls++ { // others write too: not for ever
		var st unix.Statfs_t
		if err := unix.Statfs(s.root, &st); err != nil {
			return 0, fmt.Errorf("ask for used space of %s: %w", s.root, err)
		}
		used := int64(st.Blocks-st.Bfree) * st.Bsize
		if same++; used != last {
			same, last = 0, used
		}
		time.Sleep(10 * time.Millisecond)
	}
	return last, nil
}

// syncFS writes out the filesystem that dir is on.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
