package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/lock"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/tool"
)

// ErrNoPool says that this host lacks what a pool needs.
var ErrNoPool = fault.New(fault.Host, "", "the store needs a filesystem that can reflink (XFS, btrfs), "+
	"or loop devices and root to make one in a file")

// poolFloor is the least room, in bytes, that makes a pool worth while: one
// image and its layers.
const poolFloor = 2 << 30

func (s *Store) poolFile() string { return filepath.Join(s.dir, "pool.xfs") }
func (s *Store) poolDir() string  { return filepath.Join(s.dir, "pool") }

// trustPool looks at the parts of a pool in dir, those that exist.
func trustPool(dir string) error {
	if err := trustParts(dir, 0, "lock", "pool.xfs", "pool.xfs.new"); err != nil {
		return err
	}
	return trustParts(dir, fs.ModeDir, "pool")
}

// makePool makes the pool and mounts it. The file gets its name when it holds
// a whole filesystem, so a crash leaves a temporary file that is replaced.
func (s *Store) makePool(ctx context.Context, note func(string)) error {
	unlock, err := lock.Take(ctx, filepath.Join(s.dir, "lock"), lock.Exclusive, nil)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = os.Lstat(s.poolFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // it may well be there: never format over it
	}
	if err != nil { // nobody was faster
		size, err := s.poolSize()
		if err != nil {
			return err
		}
		if err := s.formatPool(ctx, size); err != nil {
			return err
		}
		if err := s.attachPool(); err != nil {
			return errors.Join(err, os.Remove(s.poolFile())) // of no use here
		}
		note(fmt.Sprintf("%s cannot reflink: made %s, a sparse XFS file that may grow to %d GiB, and mounted it",
			s.dir, s.poolFile(), size>>30))
	}
	return s.attachPool()
}

func (s *Store) formatPool(ctx context.Context, size int64) error {
	tmp := s.poolFile() + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) // never through a link
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	// rmapbt, on by default in newer xfsprogs, triples the cost of a clone.
	_, err = tool.Run(ctx, tool.Call{
		Program: "mkfs.xfs", Args: []string{"-q", "-f", "-K", "-m", "reflink=1,rmapbt=0", "-L", "imgmut", tmp},
		What: "make pool",
	})
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp, s.poolFile()); err != nil {
		return err
	}
	return syncDir(s.dir)
}

// poolSize is nine tenths of what is free: the file is sparse, so that is a
// limit and no cost, and the filesystem under it never runs full by it alone.
func (s *Store) poolSize() (int64, error) {
	free, err := s.Free()
	if err != nil {
		return 0, err
	}
	size := share(free)
	if size < poolFloor {
		return 0, fmt.Errorf("make pool: %w: %d MiB are free, at least %d MiB are needed",
			unix.ENOSPC, free>>20, poolFloor/9*10>>20)
	}
	return size, nil
}

// share is what a pool may take of that many free bytes.
func share(free int64) int64 { return free / 10 * 9 &^ (1<<20 - 1) }

// growPool gives the pool the share of the disk that it would have today: the disk may
// have grown, or have been fuller. It tells if that is more than before.
func (s *Store) growPool(ctx context.Context) error {
	unlock, err := lock.Take(ctx, filepath.Join(s.dir, "lock"), lock.Exclusive, nil)
	if err != nil {
		return err
	}
	defer unlock()
	below, err := freeIn(s.dir)
	if err != nil {
		return err
	}
	inPool, err := freeIn(s.root)
	if err != nil {
		return err
	}
	more := share(below) - inPool
	if more < poolFloor/2 { // not worth the while
		return nil
	}
	f, err := openPart(s.poolFile(), os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	device, err := mount.OpenLoop(f)
	if err != nil {
		return err
	}
	if device == nil {
		return fmt.Errorf("grow pool: %s is mounted by no loop device", s.poolFile())
	}
	defer device.Close()
	if err := f.Truncate(fi.Size() + more); err != nil {
		return fmt.Errorf("grow pool: %w", err)
	}
	if err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("grow pool: %w", err)
	}
	pool, err := os.Open(s.root)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := mount.Grow(ctx, pool, "xfs", fi.Size()+more); err != nil {
		return fmt.Errorf("grow pool: %w", err)
	}
	s.note(fmt.Sprintf("%s may grow to %d GiB now", s.poolFile(), (fi.Size()+more)>>30))
	return nil
}

// mountPool makes sure that the pool is mounted, after a reboot for example.
func (s *Store) mountPool(ctx context.Context) error {
	if s.pooled() {
		s.root = s.poolDir()
		return nil
	}
	unlock, err := lock.Take(ctx, filepath.Join(s.dir, "lock"), lock.Exclusive, nil)
	if err != nil {
		return err
	}
	defer unlock()
	return s.attachPool()
}

// pooled tells whether the pool is mounted, by the one sign that needs no
// parsing: the directory is on another device than its parent.
func (s *Store) pooled() bool {
	var parent, pool unix.Stat_t
	return unix.Lstat(s.dir, &parent) == nil && unix.Lstat(s.poolDir(), &pool) == nil && parent.Dev != pool.Dev
}

// attachPool mounts the pool; the caller holds the store's lock.
func (s *Store) attachPool() error {
	s.root = s.poolDir()
	if s.pooled() {
		return nil
	}
	if err := os.Mkdir(s.poolDir(), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	dir, err := os.OpenFile(s.poolDir(), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := openPart(s.poolFile(), os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	// It may be attached already, for a mount in another mount namespace. A
	// second device over the same file would be a second, contradicting view. That
	// mount may be ending: the device is held until there is one here.
	device, err := mount.OpenLoop(f)
	if err != nil {
		return err
	}
	if device == nil {
		dev, err := mount.Loop(f, mount.LoopOptions{})
		if err != nil {
			return fmt.Errorf("%w (%w)", ErrNoPool, err)
		}
		device = dev.File
	}
	defer device.Close()
	// discard gives the room of removed layers back to the filesystem below.
	m, err := mount.Detached(mount.Request{Device: device.Name(), FS: "xfs", Options: []string{"discard"}})
	if err != nil {
		return fmt.Errorf("mount pool %s: %w", s.poolFile(), err)
	}
	defer m.Close()
	return mount.Attach(m, dir)
}
