package reflink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Range is a run of bytes of a file that may hold data.
type Range struct {
	Offset, Length int64 // bytes
}

// Data lists the ranges of f that are not holes, in order (lseek(2),
// SEEK_DATA). A filesystem that knows no holes gives one range. It moves the
// file's offset.
func Data(f *os.File) ([]Range, error) {
	var ranges []Range
	for at := int64(0); ; {
		start, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // only a hole is left, or nothing
			return ranges, nil
		}
		if err != nil {
			return nil, fmt.Errorf("find data in %s: %w", f.Name(), err)
		}
		end, err := f.Seek(start, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("find the end of data in %s: %w", f.Name(), err)
		}
		ranges = append(ranges, Range{start, end - start})
		at = end
	}
}

// Copy makes the empty file dst hold the bytes of src, holes as holes. It is
// for crossing filesystems; inside one, [Clone]. Progress, if not nil, is told
// the bytes done and the bytes there are to do.
func Copy(ctx context.Context, dst, src *os.File, progress func(done, total int64)) error {
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	ranges, err := Data(src)
	if err != nil {
		return err
	}
	if err := dst.Truncate(fi.Size()); err != nil {
		return err
	}
	var done, total int64
	for _, r := range ranges {
		total += r.Length
	}
	for _, r := range ranges {
		err := CopyRange(ctx, dst, r.Offset, src, r, func(n int64) {
			if done += n; progress != nil {
				progress(done, total)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// CopyRange writes a range of src to dst at offset; zeros are left out, so dst
// must be a hole there. step, if not nil, is told how many more bytes are done.
func CopyRange(ctx context.Context, dst *os.File, offset int64, src *os.File, r Range, step func(n int64)) error {
	buf := make([]byte, min(1<<20, r.Length))
	for done := int64(0); done < r.Length; {
		if ctx.Err() != nil {
			return fmt.Errorf("copy %s: %w", src.Name(), context.Cause(ctx))
		}
		b := buf[:min(int64(len(buf)), r.Length-done)]
		if _, err := src.ReadAt(b, r.Offset+done); err != nil {
			return fmt.Errorf("copy %s: read at byte %d: %w", src.Name(), r.Offset+done, err)
		}
		if err := writeSparse(dst, b, offset+done); err != nil {
			return fmt.Errorf("copy %s: %w", src.Name(), err)
		}
		done += int64(len(b))
		if step != nil {
			step(int64(len(b)))
		}
	}
	return nil
}

// writeSparse writes b at off but leaves its blocks of zeros out: raw images
// that came through a download or a pipe hold gigabytes of written zeros.
func writeSparse(dst *os.File, b []byte, off int64) error {
	for part := range slices.Chunk(b, len(zeros)) {
		if !bytes.Equal(part, zeros[:len(part)]) {
			if _, err := dst.WriteAt(part, off); err != nil {
				return err
			}
		}
		off += int64(len(part))
	}
	return nil
}

// zeros is what a hole reads as, of the size of hole that is worth one.
var zeros [64 << 10]byte
