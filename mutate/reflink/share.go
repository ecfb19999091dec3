package reflink

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Share makes dst hold a range of src at offset, and shares as much of it as can
// be: only whole blocks of the filesystem, which begin at a block in both files.
// What comes before the first of them and after the last is copied, and all of
// the range where none can be shared. dst must be a hole there.
func Share(ctx context.Context, dst *os.File, offset int64, src *os.File, r Range) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dst.Fd()), &st); err != nil {
		return fmt.Errorf("find the block size of %s: %w", dst.Name(), err)
	}
	head, blocks, tail := split(offset, r, st.Bsize)
	err := CloneRange(dst, blocks.to, src, blocks.Offset, blocks.Length)
	if errors.Is(err, ErrUnsupported) {
		return CopyRange(ctx, dst, offset, src, r, nil)
	}
	if err != nil {
		return err
	}
	for _, p := range []part{head, tail} {
		if err := CopyRange(ctx, dst, p.to, src, p.Range, nil); err != nil {
			return err
		}
	}
	return nil
}

// part is a part of the range that [Share] is given, and where it is to be.
type part struct {
	Range
	to int64
}

// split cuts the range r, which is to be at offset, into the whole blocks that
// two files can share, and what comes before and after them. Where no block can
// be shared because none begins in both files, or the range has none, all of it
// comes before.
func split(offset int64, r Range, block int64) (head, blocks, tail part) {
	end := r.Offset + r.Length
	first, last := (r.Offset+block-1)/block*block, end/block*block
	if (r.Offset-offset)%block != 0 || last < first {
		first, last = end, end
	}
	between := func(from, to int64) part { return part{Range{from, to - from}, offset + from - r.Offset} }
	return between(r.Offset, first), between(first, last), between(last, end)
}
