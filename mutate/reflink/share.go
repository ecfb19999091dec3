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
	blocks, err := sharedBlocks(dst, offset, r)
	if err != nil {
		return err
	}
	if blocks.Length > 0 {
		err := CloneRange(dst, offset+blocks.Offset-r.Offset, src, blocks.Offset, blocks.Length)
		if errors.Is(err, ErrUnsupported) {
			blocks = Range{r.Offset, 0}
		} else if err != nil {
			return err
		}
	}
	before, after := blocks.Offset, blocks.Offset+blocks.Length
	for _, part := range []Range{{r.Offset, before - r.Offset}, {after, r.Offset + r.Length - after}} {
		if err := CopyRange(ctx, dst, offset+part.Offset-r.Offset, src, part, nil); err != nil {
			return err
		}
	}
	return nil
}

// sharedBlocks is the part of the range that consists of whole blocks of dst's
// filesystem, in both files. It begins with the range if there is none.
func sharedBlocks(dst *os.File, offset int64, r Range) (Range, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dst.Fd()), &st); err != nil {
		return Range{}, fmt.Errorf("find the block size of %s: %w", dst.Name(), err)
	}
	block := st.Bsize
	first, end := (r.Offset+block-1)/block*block, (r.Offset+r.Length)/block*block
	if (r.Offset-offset)%block != 0 || end <= first {
		return Range{r.Offset, 0}, nil
	}
	return Range{first, end - first}, nil
}
