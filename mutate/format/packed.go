package format

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/imgmut/imgmut/mutate/compress"
	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/reflink"
)

// unpack is the reader of what is compressed.
func unpack(m compress.Method) reader {
	return func(ctx context.Context, dst, src *os.File, o Options) (bool, error) {
		fi, err := src.Stat()
		if err != nil {
			return false, err
		}
		done := int64(0)
		in := content.Reader(ctx, io.NewSectionReader(src, 0, fi.Size()), func(n int) {
			done += int64(n)
			o.Progress(done, fi.Size())
		})
		plain, err := m.NewReader(in)
		if errors.Is(err, compress.ErrUnknown) {
			return false, fault.New(fault.Image, "unpack it, and import what it holds", "%w", err)
		}
		if err != nil {
			return false, damaged("it is damaged: %w", err)
		}
		err = errors.Join(fill(ctx, dst, plain, o), plain.Close())
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		return false, err
	}
}

// fill writes what is unpacked to a file. How much that is, nobody knows before: so the
// room is asked for as it goes.
func fill(ctx context.Context, dst *os.File, plain io.Reader, o Options) error {
	const often = 256 << 20
	w := reflink.NewWriter(dst)
	buf := make([]byte, 1<<20)
	for at := int64(0); ; {
		n, err := readPart(ctx, plain, buf)
		if _, writeErr := w.WriteAt(buf[:n], at); writeErr != nil {
			return errors.Join(writeErr, w.Wait())
		}
		if at += int64(n); err == io.EOF {
			return errors.Join(dst.Truncate(at), w.Wait()) // zeros at the end were left out
		}
		switch {
		case err != nil:
			err = damaged("it is damaged: %w", err)
		case at > maxSize:
			err = fault.New(fault.Image, "", "it holds more than %d TiB", maxSize>>40)
		case at%often == 0:
			err = o.Room(often)
		}
		if err != nil {
			return errors.Join(err, w.Wait())
		}
	}
}

// readPart fills b. Unlike with [io.ReadFull], an end that comes too soon is told from
// the end: that is [io.EOF], whatever was read before it.
func readPart(ctx context.Context, r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		if ctx.Err() != nil { // what unpacks to much is read seldom
			return n, context.Cause(ctx)
		}
		var more int
		more, err = r.Read(b[n:])
		n += more
	}
	return n, err
}
