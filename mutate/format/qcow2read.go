package format

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/reflink"
)

// readQcow2 is the reader of qcow2.
func readQcow2(ctx context.Context, dst, src *os.File, o Options) (backed bool, err error) {
	q, err := parseQcow2(src)
	if err != nil {
		return false, err
	}
	return q.backing != "", q.read(ctx, dst, o, 0)
}

// maxBacking is how many images may be the difference to another, one on the other.
const maxBacking = 32

// read makes dst the image: what its backing file holds, and its own clusters over that.
func (q *qcow2) read(ctx context.Context, dst *os.File, o Options, depth int) error {
	if q.backing != "" {
		if err := q.readBelow(ctx, dst, o, depth); err != nil {
			return err
		}
	}
	c := copier{qcow2: q, dst: dst, w: reflink.NewWriter(dst), progress: o.Progress}
	if err := c.measure(ctx, o.Room); err != nil {
		return err
	}
	if err := dst.Truncate(q.size); err != nil {
		return err
	}
	return errors.Join(c.copy(ctx), c.w.Wait())
}

// readBelow makes dst what the backing file holds.
func (q *qcow2) readBelow(ctx context.Context, dst *os.File, o Options, depth int) error {
	if o.Beside == "" {
		return fault.New(fault.Image,
			"--allow-backing, or allow-backing: true in a recipe, allows that; or qemu-img convert makes an image of both",
			"it is the difference to another image, %q, which was not allowed", q.backing)
	}
	if depth == maxBacking {
		return damaged("it is the difference to another image, and that again, more than %d times", maxBacking)
	}
	f, err := openBeside(o.Beside, q.backing)
	if err != nil {
		return err
	}
	defer f.Close()
	if q.raw {
		fi, err := f.Stat()
		if err != nil {
			return err
		}
		return reflink.Share(ctx, dst, 0, f, reflink.Range{Length: min(fi.Size(), q.size)})
	}
	below, err := parseQcow2(f)
	if err == nil {
		below.size = min(below.size, q.size)
		err = below.read(ctx, dst, o, depth+1)
	}
	if err != nil {
		return fmt.Errorf("backing file %s: %w", q.backing, err)
	}
	return nil
}

// openBeside opens a file in a directory, by no way out of that.
func openBeside(dir, name string) (*os.File, error) {
	refused := func(err error) error {
		return fault.New(fault.Image, "have both in one directory, and qemu-img rebase -u write the name down",
			"backing file %q: it is no file in %s: %w", name, dir, err)
	}
	if filepath.IsAbs(name) {
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return nil, refused(err)
		}
		name = rel
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, refused(err)
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, refused(errors.Join(err, errors.New("not a regular file")))
	}
	return f, nil
}

// copier takes the clusters of an image into a raw file.
type copier struct {
	*qcow2
	dst      *os.File
	w        *reflink.Writer
	progress func(done, total int64)

	mu          sync.Mutex
	done, total int64
	err         error // the first
}

// measure goes through the tables once before anything is written: what they say may
// be too much, or wrong near the end.
func (c *copier) measure(ctx context.Context, room func(int64) error) error {
	var plain, packed int64
	for r, err := range c.runs(ctx) {
		switch {
		case err != nil:
			return err
		case r.packed > 0:
			packed += r.length
		case !r.zero:
			plain += r.length
		}
	}
	c.total = plain + packed
	if c.shares() {
		plain = 0
	}
	return room(plain + packed)
}

// shares says whether clusters can be shared: on one filesystem, in whole blocks of it.
func (c *copier) shares() bool {
	var from, to unix.Stat_t
	if unix.Fstat(int(c.f.Fd()), &from) != nil || unix.Fstat(int(c.dst.Fd()), &to) != nil {
		return false
	}
	return from.Dev == to.Dev && c.cluster/c.sub%int64(to.Blksize) == 0
}

// copy takes all runs, on all cores.
func (c *copier) copy(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	runs := make(chan run, 64)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			u := unpacker{qcow2: c.qcow2}
			defer u.close()
			for r := range runs {
				if err := c.take(ctx, r, &u); err != nil {
					c.fail(err)
					cancel()
				}
			}
		})
	}
	for r, err := range c.runs(ctx) {
		if err != nil {
			c.fail(err)
			break
		}
		runs <- r
	}
	close(runs)
	wg.Wait()
	return c.err
}

func (c *copier) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// take makes the file hold a run.
func (c *copier) take(ctx context.Context, r run, u *unpacker) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.backing != "" { // there may be something of that
		err := unix.Fallocate(int(c.dst.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, r.guest, r.length)
		if err != nil {
			return fmt.Errorf("cover what the backing file has at %d: %w", r.guest, err)
		}
	}
	switch {
	case r.zero:
		return nil
	case r.packed > 0:
		b, err := u.unpack(r)
		if err != nil {
			return err
		}
		if _, err := c.w.WriteAt(b[:r.length], r.guest); err != nil {
			return err
		}
	default:
		if err := reflink.Share(ctx, c.dst, r.guest, c.f, reflink.Range{Offset: r.host, Length: r.length}); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.done += r.length
	done := c.done
	c.mu.Unlock()
	c.progress(done, c.total)
	return nil
}

// unpacker unpacks clusters, one after the other.
type unpacker struct {
	*qcow2
	in, out []byte
	deflate io.ReadCloser
	zstd    *zstd.Decoder
}

// unpack gives what a cluster holds, until it is called again. That a library panics is
// the cluster's fault.
func (u *unpacker) unpack(r run) (b []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = damaged("the cluster at byte %d of the image cannot be unpacked: %v", r.guest, p)
		}
	}()
	if u.out == nil {
		u.in, u.out = make([]byte, 2*u.cluster+512), make([]byte, u.cluster)
	}
	in := u.in[:min(r.packed, int64(len(u.in)))]
	if _, err := u.f.ReadAt(in, r.host); err != nil {
		return nil, fmt.Errorf("read a cluster at byte %d: %w", r.host, err)
	}
	plain, err := u.open(in)
	if err == nil {
		_, err = io.ReadFull(plain, u.out)
	}
	if err != nil {
		return nil, damaged("the cluster at byte %d of the image cannot be unpacked: %w", r.guest, err)
	}
	return u.out, nil
}

func (u *unpacker) open(in []byte) (io.Reader, error) {
	switch {
	case u.qcow2.zstd && u.zstd == nil:
		const window = 8 << 20 // clusters have no more than 2
		var err error
		u.zstd, err = zstd.NewReader(bytes.NewReader(in), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window))
		return u.zstd, err
	case u.qcow2.zstd:
		return u.zstd, u.zstd.Reset(bytes.NewReader(in))
	case u.deflate == nil:
		u.deflate = flate.NewReader(bytes.NewReader(in))
		return u.deflate, nil
	}
	return u.deflate, u.deflate.(flate.Resetter).Reset(bytes.NewReader(in), nil)
}

func (u *unpacker) close() {
	if u.zstd != nil {
		u.zstd.Close()
	}
}
