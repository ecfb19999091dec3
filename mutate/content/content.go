// Package content names an image by its bytes.
//
// The digest of an image is the SHA-256 of a header and of the SHA-256 of
// each of its 1 MiB chunks:
//
//	sha256("imgmut content v1\n" | size, 8 bytes big-endian | sha256(chunk 0) | sha256(chunk 1) | …)
//
// It depends on the bytes alone: a hole and written zeros are equal. The list
// of chunk sums ([Sums]) buys three things over a plain sha256 of the file:
// holes cost nothing, all cores work, and the digest of a fork is made from
// that of its parent by reading only the chunks whose extents differ
// ([Sums.Update]), because two files that share an extent share its bytes.
package content

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/imgmut/imgmut/mutate/reflink"
)

// Chunk is the number of bytes that one sum covers; the last may cover less.
const Chunk = 1 << 20

const header = "imgmut content v1\n"

// Sums are the chunk sums of one image.
type Sums struct {
	size   int64
	chunks [][sha256.Size]byte
}

// Digest is the image's content digest, 64 hexadecimal digits.
func (s *Sums) Digest() string {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64([]byte(header), uint64(s.size)))
	for i := range s.chunks {
		h.Write(s.chunks[i][:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// MarshalBinary gives the sums in the form that [Sums.UnmarshalBinary] reads:
// the size, 8 bytes big-endian, then 32 bytes a chunk.
func (s *Sums) MarshalBinary() ([]byte, error) {
	b := binary.BigEndian.AppendUint64(nil, uint64(s.size))
	for i := range s.chunks {
		b = append(b, s.chunks[i][:]...)
	}
	return b, nil
}

// UnmarshalBinary reads what [Sums.MarshalBinary] wrote.
func (s *Sums) UnmarshalBinary(b []byte) error {
	if len(b) < 8 || (len(b)-8)%sha256.Size != 0 {
		return fmt.Errorf("read chunk sums: %d bytes are not a list of sums", len(b))
	}
	size := int64(binary.BigEndian.Uint64(b))
	b = b[8:]
	if size < 0 || int64(len(b)/sha256.Size) != chunkCount(size) {
		return fmt.Errorf("read chunk sums: %d sums do not cover %d bytes", len(b)/sha256.Size, size)
	}
	s.size, s.chunks = size, make([][sha256.Size]byte, len(b)/sha256.Size)
	for i := range s.chunks {
		copy(s.chunks[i][:], b[i*sha256.Size:])
	}
	return nil
}

// Sum reads f, but not its holes. Progress, if not nil, is told the bytes done
// and the bytes there are to do, from any goroutine.
func Sum(ctx context.Context, f *os.File, progress func(done, total int64)) (*Sums, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	ranges, err := reflink.Data(f)
	if err != nil {
		return nil, err
	}
	var todo []int64
	for _, r := range ranges {
		for c := r.Offset / Chunk; c*Chunk < r.Offset+r.Length; c++ {
			if len(todo) == 0 || todo[len(todo)-1] < c {
				todo = append(todo, c)
			}
		}
	}
	s := &Sums{size: fi.Size(), chunks: make([][sha256.Size]byte, chunkCount(fi.Size()))}
	zeros := sha256.Sum256(make([]byte, Chunk))
	for i := range s.chunks {
		s.chunks[i] = zeros
	}
	if tail := fi.Size() % Chunk; tail != 0 {
		s.chunks[len(s.chunks)-1] = sha256.Sum256(make([]byte, tail))
	}
	return s, s.hash(ctx, f, todo, progress)
}

// Update gives the sums of f, a fork of parent, whose sums s are. It reads
// only the chunks in which the two files do not share their extents. Both
// files must exist and stay unchanged meanwhile: then one place on the disk
// holds the same bytes for both.
func (s *Sums) Update(ctx context.Context, parent, f *os.File) (*Sums, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() != s.size {
		return Sum(ctx, f, nil)
	}
	origin, err := parent.Stat()
	if err != nil {
		return nil, err
	}
	if origin.Sys().(*syscall.Stat_t).Dev != fi.Sys().(*syscall.Stat_t).Dev {
		return Sum(ctx, f, nil) // one address, but two disks
	}
	before, err := reflink.Extents(parent)
	if err != nil {
		return Sum(ctx, f, nil) // no FIEMAP on this filesystem
	}
	after, err := reflink.Extents(f)
	if err != nil {
		return nil, err
	}
	u := &Sums{size: s.size, chunks: slices.Clone(s.chunks)}
	return u, u.hash(ctx, f, changed(before, after, len(s.chunks)), nil)
}

// changed lists the chunks in which two files may differ, given where the bytes
// of each lie on the disk.
func changed(before, after []reflink.Extent, chunks int) []int64 {
	was, is := byChunk(before, chunks), byChunk(after, chunks)
	var list []int64
	for c := range is {
		if !slices.Equal(was[c], is[c]) || slices.ContainsFunc(is[c], unplaced) {
			list = append(list, int64(c))
		}
	}
	return list
}

// unplaced says that an extent's physical address does not tell its bytes.
func unplaced(e reflink.Extent) bool {
	return e.Flags&(reflink.ExtentUnknown|reflink.ExtentDelalloc|reflink.ExtentEncoded|reflink.ExtentInline) != 0
}

// byChunk cuts the extents of a file at the borders of its chunks.
func byChunk(extents []reflink.Extent, chunks int) [][]reflink.Extent {
	const own = ^uint32(reflink.ExtentShared | 1) // who else shares it, and being last, are not about the bytes
	places := make([][]reflink.Extent, chunks)
	for _, e := range extents {
		for e.Flags &= own; e.Length > 0; {
			c := e.Logical / Chunk
			if c >= int64(chunks) { // preallocation beyond the end
				break
			}
			part := e
			part.Length = min(e.Length, (c+1)*Chunk-e.Logical)
			places[c] = join(places[c], part)
			e.Logical, e.Physical, e.Length = e.Logical+part.Length, e.Physical+part.Length, e.Length-part.Length
		}
	}
	return places
}

// join appends e, merged with the last extent where the two touch: the same
// blocks may be mapped by one extent in one file and by two in the other.
func join(list []reflink.Extent, e reflink.Extent) []reflink.Extent {
	if n := len(list) - 1; n >= 0 {
		l := &list[n]
		if l.Flags == e.Flags && l.Logical+l.Length == e.Logical && l.Physical+l.Length == e.Physical {
			l.Length += e.Length
			return list
		}
	}
	return append(list, e)
}

// hash fills in the sums of the chunks todo, on all cores.
func (s *Sums) hash(ctx context.Context, f *os.File, todo []int64, progress func(done, total int64)) error {
	var next, done atomic.Int64
	workers := min(runtime.GOMAXPROCS(0), len(todo))
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			buf := make([]byte, Chunk)
			for errs[w] == nil {
				i := next.Add(1) - 1
				if i >= int64(len(todo)) {
					return
				}
				if ctx.Err() != nil {
					errs[w] = fmt.Errorf("digest %s: %w", f.Name(), context.Cause(ctx))
					return
				}
				errs[w] = s.hashChunk(f, todo[i], buf)
				if n := done.Add(1); progress != nil {
					progress(n*Chunk, int64(len(todo))*Chunk)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *Sums) hashChunk(f *os.File, c int64, buf []byte) error {
	n := min(Chunk, s.size-c*Chunk)
	if _, err := io.ReadFull(io.NewSectionReader(f, c*Chunk, n), buf[:n]); err != nil {
		return fmt.Errorf("digest %s: read at byte %d: %w", f.Name(), c*Chunk, err)
	}
	s.chunks[c] = sha256.Sum256(buf[:n])
	return nil
}

func chunkCount(size int64) int64 { return (size + Chunk - 1) / Chunk }

// Reader gives what r gives until the context ends, and then its cause.
func Reader(ctx context.Context, r io.Reader) io.Reader { return reader{ctx, r} }

type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(b)
}
