package reflink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// Range is a run of bytes of a file that may hold data.
type Range struct {
	Offset, Length int64 // bytes
}

// Data gives the ranges of f that are not holes, in order (lseek(2),
// SEEK_DATA), and ends with an error if they cannot be found or ctx ends. A
// filesystem that knows no holes has one range. The ranges are not held: a file
// may have many millions. It moves the file's offset.
func Data(ctx context.Context, f *os.File) iter.Seq2[Range, error] {
	return dataIn(ctx, f, Range{0, math.MaxInt64})
}

// dataIn is [Data] of a part of f.
func dataIn(ctx context.Context, f *os.File, within Range) iter.Seq2[Range, error] {
	return func(yield func(Range, error) bool) {
		end := within.Offset + within.Length
		for at := within.Offset; ; {
			r, err := nextData(ctx, f, at)
			if errors.Is(err, unix.ENXIO) { // only a hole is left, or nothing
				return
			}
			if err != nil {
				yield(Range{}, fmt.Errorf("find data in %s: %w", f.Name(), err))
				return
			}
			at = r.Offset + r.Length
			r.Length = min(at, end) - r.Offset
			if r.Length <= 0 || !yield(r, nil) {
				return
			}
		}
	}
}

func nextData(ctx context.Context, f *os.File, at int64) (Range, error) {
	if ctx.Err() != nil {
		return Range{}, context.Cause(ctx)
	}
	start, err := f.Seek(at, unix.SEEK_DATA)
	if err != nil {
		return Range{}, err
	}
	end, err := f.Seek(start, unix.SEEK_HOLE)
	return Range{start, end - start}, err
}

// DataSize is how many bytes of f are not holes.
func DataSize(ctx context.Context, f *os.File) (total int64, err error) {
	for r, err := range Data(ctx, f) {
		if err != nil {
			return 0, err
		}
		total += r.Length
	}
	return total, nil
}

// Copy makes the empty file dst hold the bytes of src, holes as holes. It is
// for crossing filesystems; inside one, [Clone]. Progress, if not nil, is told
// the bytes done and the bytes there are to do.
func Copy(ctx context.Context, dst, src *os.File, progress func(done, total int64)) error {
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	if err := dst.Truncate(fi.Size()); err != nil {
		return err
	}
	var total, done int64
	if progress != nil {
		if total, err = DataSize(ctx, src); err != nil {
			return err
		}
	}
	w := NewWriter(dst)
	err = CopyRange(ctx, dst, 0, src, Range{0, fi.Size()}, func(n int64) {
		w.wrote(n)
		if done += n; progress != nil {
			progress(done, total)
		}
	})
	return errors.Join(err, w.Wait())
}

// CopyRange writes a range of src to dst at offset; holes and zeros are left
// out, so dst must be a hole there. A source that ends before the range does is
// an error. step, if not nil, is told how many more bytes of data are done.
func CopyRange(ctx context.Context, dst *os.File, offset int64, src *os.File, within Range, step func(n int64)) error {
	buf := make([]byte, min(1<<20, within.Length))
	for r, err := range dataIn(ctx, src, within) {
		if err != nil {
			return fmt.Errorf("copy %s: %w", src.Name(), err)
		}
		for done := int64(0); done < r.Length; {
			if ctx.Err() != nil {
				return fmt.Errorf("copy %s: %w", src.Name(), context.Cause(ctx))
			}
			b := buf[:min(int64(len(buf)), r.Length-done)]
			at := r.Offset + done
			if _, err := src.ReadAt(b, at); err != nil {
				return fmt.Errorf("copy %s: read at byte %d: %w", src.Name(), at, err)
			}
			if err := writeSparse(dst, b, offset+at-within.Offset); err != nil {
				return fmt.Errorf("copy %s: %w", src.Name(), err)
			}
			done += int64(len(b))
			if step != nil {
				step(int64(len(b)))
			}
		}
	}
	fi, err := src.Stat()
	if err == nil && fi.Size() < within.Offset+within.Length {
		err = fmt.Errorf("copy %s: it ends at byte %d: %w", src.Name(), fi.Size(), io.ErrUnexpectedEOF)
	}
	return err
}
