// Package statcache remembers the sums of files, so that a tree that has not
// changed need not be read again to know that.
//
// A sum is kept with what fstat(2) said of the file: whoever changes its bytes
// or its attributes changes the time of its inode, which no program can set.
// Two changes within one tick of the clock leave the same time, though, so a
// file that changed just before it was read is not remembered; and filesystems
// whose times may be another machine's are left out. What this cannot see is a
// program that goes on writing through a mapping of the file (mmap(2)): the
// kernel sets the time at the first write and at writeback, and not between.
//
// What is kept of a tree is one file, in the order in which the tree is walked,
// and it holds only what the last walk came upon. It only saves work: it may be
// deleted at any time, a damaged one counts as missing, and of several processes
// the last to write wins.
package statcache

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cache holds the sums of one tree after the other. It is for one goroutine.
type Cache struct {
	dir   string
	known []entry           // of the tree that is walked, as the file has it
	index map[[2]uint64]int // place in known, once the walk has left the order
	next  int               // where the next file is in known, if nothing has changed
	seen  []entry           // in this walk
	fresh bool              // something in seen is not in known
	local bool              // the tree's times are from this machine's clock
	dev   uint64            // of the tree
	clock func() time.Time  // for tests
}

// New gives the cache whose files are in dir, which is made when there is
// something to keep.
func New(dir string) *Cache { return &Cache{dir: dir, clock: time.Now} }

// entry is a file and its sum.
type entry struct {
	Dev, Ino     uint64
	Size         int64
	Mtime, Ctime int64 // nanoseconds
	Sum          [32]byte
}

const (
	entrySize = 5*8 + 32
	magic     = "imgmut stat cache v1\n"
	// maxEntries bounds a file of the cache to some 36 MiB, maxTrees their number.
	maxEntries = 500_000
	maxTrees   = 64
)

func entryOf(st *unix.Stat_t) entry {
	return entry{Dev: uint64(st.Dev), Ino: st.Ino, Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano()}
}

// isOf says whether nothing has changed since.
func (e *entry) isOf(now *entry) bool {
	return e.Ino == now.Ino && e.Dev == now.Dev && e.Size == now.Size && e.Mtime == now.Mtime && e.Ctime == now.Ctime
}

// Begin begins a walk of the tree that top is the directory of; end keeps what
// it came upon.
func (c *Cache) Begin(top *os.File) (end func(), err error) {
	var st unix.Stat_t
	var sys unix.Statfs_t
	if err := errors.Join(unix.Fstat(int(top.Fd()), &st), unix.Fstatfs(int(top.Fd()), &sys)); err != nil {
		return nil, fmt.Errorf("stat %s: %w", top.Name(), err)
	}
	c.dev, c.local = uint64(st.Dev), slices.Contains(localFS, sys.Type)
	c.index, c.next, c.seen, c.fresh = nil, 0, nil, false
	file := filepath.Join(c.dir, fmt.Sprintf("%x-%x", st.Dev, st.Ino))
	c.known = load(file)
	return func() {
		_ = os.Chtimes(file, time.Time{}, c.clock()) // it is of use: the least used go first
		if !c.fresh && len(c.seen) == len(c.known) || len(c.seen) > maxEntries {
			return
		}
		// What cannot be kept is only read again. Where that is for lack of
		// space, whatever needs the space will say so.
		_ = c.save(file)
	}, nil
}

// localFS are filesystems whose times are from the clock of this machine.
var localFS = []int64{
	unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC,
	unix.F2FS_SUPER_MAGIC, unix.BCACHEFS_SUPER_MAGIC, 0x2fc12fc1, // ZFS, for which x/sys has no name
}

// Sum gives the sum of a file that has not changed since it was stored.
func (c *Cache) Sum(st *unix.Stat_t) (sum [32]byte, ok bool) {
	now := entryOf(st)
	if c.next < len(c.known) && c.known[c.next].isOf(&now) {
		c.seen = append(c.seen, c.known[c.next])
		c.next++
		return c.seen[len(c.seen)-1].Sum, true
	}
	if c.index == nil {
		c.index = make(map[[2]uint64]int, len(c.known))
		for i := range c.known {
			c.index[[2]uint64{c.known[i].Dev, c.known[i].Ino}] = i
		}
	}
	i, ok := c.index[[2]uint64{now.Dev, now.Ino}]
	if !ok || !c.known[i].isOf(&now) {
		return sum, false
	}
	c.next = i + 1
	c.fresh = true // of another order, or what was before it is gone
	c.seen = append(c.seen, c.known[i])
	return c.known[i].Sum, true
}

// tick is more than the granularity of file times. That is the kernel's tick of
// 10 ms at most, or finer since Linux 6.13. A time of whole seconds may be of a
// filesystem that keeps no more.
func tick(ctime unix.Timespec) time.Duration {
	if ctime.Nsec == 0 {
		return 2 * time.Second
	}
	return 20 * time.Millisecond
}

// Store takes the sum of a file, of which st was told before it was read, from
// the time of reading on.
func (c *Cache) Store(st *unix.Stat_t, sum [32]byte, reading time.Time) {
	changed := time.Unix(st.Ctim.Unix())
	if !c.local || uint64(st.Dev) != c.dev || reading.Sub(changed) < tick(st.Ctim) {
		return
	}
	e := entryOf(st)
	e.Sum = sum
	c.seen, c.fresh = append(c.seen, e), true
}

// load reads the entries of a tree; none if there is no such file or it is not whole.
func load(file string) []entry {
	b, err := os.ReadFile(file)
	if err != nil || len(b) < len(magic)+sha256.Size || !bytes.HasPrefix(b, []byte(magic)) {
		return nil
	}
	body, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if (len(body)-len(magic))%entrySize != 0 || sha256.Sum256(body) != [sha256.Size]byte(sum) {
		return nil
	}
	known := make([]entry, (len(body)-len(magic))/entrySize)
	for i := range known {
		b := body[len(magic)+i*entrySize:][:entrySize]
		word := func(n int) uint64 { return binary.LittleEndian.Uint64(b[8*n:]) }
		known[i] = entry{word(0), word(1), int64(word(2)), int64(word(3)), int64(word(4)), [32]byte(b[40:])}
	}
	return known
}

// save writes what was seen in place of what was known.
func (c *Cache) save(file string) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	b := append(make([]byte, 0, len(magic)+len(c.seen)*entrySize+sha256.Size), magic...)
	for i := range c.seen {
		e := &c.seen[i]
		for _, word := range []uint64{e.Dev, e.Ino, uint64(e.Size), uint64(e.Mtime), uint64(e.Ctime)} {
			b = binary.LittleEndian.AppendUint64(b, word)
		}
		b = append(b, e.Sum[:]...)
	}
	sum := sha256.Sum256(b)
	tmp, err := os.CreateTemp(c.dir, ".new-")
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(b, sum[:]...))
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return c.prune()
}

// prune removes the trees that nobody wrote for longest, beyond maxTrees, and
// what processes that were killed have left.
func (c *Cache) prune() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	type tree struct {
		name string
		used time.Time // or written
	}
	var trees []tree
	var errs []error
	remove := func(name string) {
		if err := os.Remove(filepath.Join(c.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, e := range entries {
		fi, err := e.Info()
		switch {
		case err != nil: // gone meanwhile
		case !strings.HasPrefix(e.Name(), "."):
			trees = append(trees, tree{e.Name(), fi.ModTime()})
		case c.clock().Sub(fi.ModTime()) > time.Hour:
			remove(e.Name())
		}
	}
	slices.SortFunc(trees, func(a, b tree) int {
		return cmp.Or(b.used.Compare(a.used), strings.Compare(a.name, b.name))
	})
	for _, t := range trees[min(len(trees), maxTrees):] {
		remove(t.name)
	}
	return errors.Join(errs...)
}
