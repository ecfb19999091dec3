// Package content names an image by its bytes.
//
// The digest of an image is the SHA-256 of its list of chunks of 1 MiB, in which
// those that are all zeros are left out:
//
//	"imgmut content v2\n" | size, 8 bytes big-endian |
//	for each other chunk, in order: its number, 8 bytes big-endian | sha256(chunk)
//
// It depends on the bytes alone: a hole and written zeros are equal. The list
// ([Sums]) buys three things over a plain sha256 of the file: holes cost
// nothing, neither time nor memory, all cores work, and the digest of a fork is
// made from that of its parent by reading only the chunks whose extents differ
// ([Sums.Update]), because two files that share an extent share its bytes.
//
// The size of an image says nothing about its cost, for it may be a hole of
// exabytes. The list costs 40 bytes for each MiB with data, and there is a bound
// on that ([MaxData]); extents, of which there may be far more, are never held.
package content

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"syscall"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/reflink"
)

// Chunk is the number of bytes that one sum covers; the last may cover less.
const Chunk = 1 << 20

// MaxData is how much of an image may be data, counted in whole chunks: its list
// takes 160 MiB of memory. More is refused, as an error of class [fault.Image].
const MaxData = 4 << 40

const header = "imgmut content v2\n"

// Sums are the sums of the chunks of one image.
type Sums struct {
	size   int64
	chunks []chunk // that are not all zeros, in order
}

// chunk is one sum.
type chunk struct {
	number int64
	sum    [sha256.Size]byte // all zeros for a chunk that is
}

// listed is the length of a chunk in the list.
const listed = 8 + sha256.Size

// Digest is the image's content digest, 64 hexadecimal digits.
func (s *Sums) Digest() string {
	h := sha256.New()
	h.Write(s.head())
	b := make([]byte, 0, listed)
	for _, c := range s.chunks {
		h.Write(c.append(b))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Size is how many bytes the image has.
func (s *Sums) Size() int64 { return s.size }

func (s *Sums) head() []byte { return binary.BigEndian.AppendUint64([]byte(header), uint64(s.size)) }

func (c chunk) append(b []byte) []byte {
	return append(binary.BigEndian.AppendUint64(b, uint64(c.number)), c.sum[:]...)
}

// MarshalBinary gives the list, of which the digest is the SHA-256.
func (s *Sums) MarshalBinary() ([]byte, error) {
	b := slices.Grow(s.head(), len(s.chunks)*listed)
	for _, c := range s.chunks {
		b = c.append(b)
	}
	return b, nil
}

// UnmarshalBinary reads what [Sums.MarshalBinary] wrote.
func (s *Sums) UnmarshalBinary(b []byte) error {
	b, ok := bytes.CutPrefix(b, []byte(header))
	if !ok {
		return fmt.Errorf("read chunk sums: they do not begin with %q", header)
	}
	if len(b) < 8 || (len(b)-8)%listed != 0 {
		return fmt.Errorf("read chunk sums: %d bytes are not a list of sums", len(b))
	}
	if int64(binary.BigEndian.Uint64(b)) < 0 {
		return errors.New("read chunk sums: the size is below zero")
	}
	read := Sums{size: int64(binary.BigEndian.Uint64(b)), chunks: make([]chunk, 0, len(b)/listed)}
	last := int64(-1)
	for b := range slices.Chunk(b[8:], listed) {
		c := chunk{int64(binary.BigEndian.Uint64(b)), [sha256.Size]byte(b[8:])}
		if c.number <= last || c.number >= chunkCount(read.size) {
			return fmt.Errorf("read chunk sums: chunk %d after chunk %d of %d bytes", c.number, last, read.size)
		}
		read.chunks, last = append(read.chunks, c), c.number
	}
	*s = read
	return nil
}

// Sum reads f, but not its holes. Progress, if not nil, is told the bytes done
// and the bytes there are to do, from any goroutine.
func Sum(ctx context.Context, f *os.File, progress func(done, total int64)) (*Sums, error) {
	return sum(ctx, f, nil, progress)
}

// Copy makes the empty file dst hold the bytes of src, holes as holes, and gives their
// sums: read once, they cost hardly more than the copy. Progress is as for [Sum].
func Copy(ctx context.Context, dst, src *os.File, progress func(done, total int64)) (*Sums, error) {
	fi, err := src.Stat()
	if err != nil {
		return nil, err
	}
	if err := dst.Truncate(fi.Size()); err != nil {
		return nil, err
	}
	to := reflink.NewWriter(dst)
	s, err := sum(ctx, src, to, progress)
	if err = errors.Join(err, to.Wait()); err != nil {
		return nil, err
	}
	return s, nil
}

// sum is [Sum], and [Copy] if there is something to copy to.
func sum(ctx context.Context, f *os.File, to *reflink.Writer, progress func(done, total int64)) (*Sums, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	n, err := countData(ctx, f)
	if err != nil {
		return nil, err
	}
	if err := checkData(f, n); err != nil {
		return nil, err
	}
	h := hasher{f: f, to: to, size: fi.Size(), progress: progress, total: n * Chunk}
	read, err := h.hash(ctx, withData(ctx, f))
	if err != nil {
		return nil, err
	}
	return (&Sums{size: fi.Size()}).with(read), nil
}

// withData lists the chunks of f that are not holes as a whole.
func withData(ctx context.Context, f *os.File) iter.Seq2[int64, error] {
	return func(yield func(int64, error) bool) {
		next := int64(0)
		for r, err := range reflink.Data(ctx, f) {
			if err != nil {
				yield(0, err)
				return
			}
			for next = max(next, r.Offset/Chunk); next < chunkCount(r.Offset+r.Length); next++ {
				if !yield(next, nil) {
					return
				}
			}
		}
	}
}

// countData is how many chunks [withData] lists.
func countData(ctx context.Context, f *os.File) (n int64, err error) {
	next := int64(0)
	for r, err := range reflink.Data(ctx, f) {
		if err != nil {
			return 0, err
		}
		next = max(next, r.Offset/Chunk)
		n += chunkCount(r.Offset+r.Length) - next
		next = chunkCount(r.Offset + r.Length)
	}
	return n, nil
}

// Update gives the sums of f, a fork of parent, whose sums s are. f may have become
// larger. It reads only the chunks in which the two files do not share their extents. Both
// files must exist and stay unchanged meanwhile: then one place on the disk
// holds the same bytes for both.
func (s *Sums) Update(ctx context.Context, parent, f *os.File) (*Sums, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	was, err := parent.Stat()
	if err != nil {
		return nil, err
	}
	if was.Size() != s.size || fi.Size() < s.size {
		return Sum(ctx, f, nil)
	}
	told, err := comparable(ctx, parent, f)
	if err != nil {
		return nil, err
	}
	if !told {
		return Sum(ctx, f, nil)
	}
	h := hasher{f: f, size: fi.Size()}
	todo := changed(reflink.Extents(ctx, parent), reflink.Extents(ctx, f), chunkCount(fi.Size()))
	if fi.Size() > s.size && s.size%Chunk != 0 {
		todo = including(s.size/Chunk, todo) // the last one was cut short
	}
	read, err := h.hash(ctx, todo)
	if err != nil {
		return nil, err
	}
	u := (&Sums{fi.Size(), s.chunks}).with(read)
	return u, checkData(f, int64(len(u.chunks)))
}

// including is a list of chunks with one more, once.
func including(chunk int64, list iter.Seq2[int64, error]) iter.Seq2[int64, error] {
	return func(yield func(int64, error) bool) {
		if !yield(chunk, nil) {
			return
		}
		for n, err := range list {
			if (n != chunk || err != nil) && !yield(n, err) {
				return
			}
		}
	}
}

// comparable says whether where two files have their bytes tells that they are the same.
func comparable(ctx context.Context, a, b *os.File) (bool, error) {
	first, err := a.Stat()
	if err != nil {
		return false, err
	}
	second, err := b.Stat()
	if err != nil {
		return false, err
	}
	if first.Sys().(*syscall.Stat_t).Dev != second.Sys().(*syscall.Stat_t).Dev {
		return false, nil // one address, but two disks
	}
	for _, err := range reflink.Extents(ctx, b) {
		return err == nil, nil // else there is no FIEMAP on this filesystem
	}
	return true, nil // there are none to tell
}

// Shares says whether a part of f is known to hold what the same part of parent does,
// because they share its place on the disk. Not a byte is read, so the same bytes in
// another place count as others. As in [Sums.Update], both files stay as they are
// meanwhile.
func Shares(ctx context.Context, parent, f *os.File, part reflink.Range) (bool, error) {
	if told, err := comparable(ctx, parent, f); err != nil || !told {
		return false, err
	}
	was, is := reflink.ExtentsIn(ctx, parent, part), reflink.ExtentsIn(ctx, f, part)
	for _, err := range changed(was, is, chunkCount(part.Offset+part.Length)) {
		return false, err
	}
	return true, nil
}

// Apart gives the parts of f, of at most [Chunk] bytes, that are not known to hold what
// the same part of other does, because they share its place on the disk: all of f where
// that does not tell. Both files have the same size, and stay as they are meanwhile.
func Apart(ctx context.Context, other, f *os.File) iter.Seq2[reflink.Range, error] {
	return func(yield func(reflink.Range, error) bool) {
		fi, err := f.Stat()
		if err != nil {
			yield(reflink.Range{}, err)
			return
		}
		told, err := comparable(ctx, other, f)
		if err != nil {
			yield(reflink.Range{}, err)
			return
		}
		chunks := everyChunk(ctx, chunkCount(fi.Size()))
		if told {
			chunks = changed(reflink.Extents(ctx, other), reflink.Extents(ctx, f), chunkCount(fi.Size()))
		}
		for n, err := range chunks {
			at := n * Chunk
			if !yield(reflink.Range{Offset: at, Length: min(Chunk, fi.Size()-at)}, err) || err != nil {
				return
			}
		}
	}
}

// everyChunk lists them all, until ctx ends.
func everyChunk(ctx context.Context, count int64) iter.Seq2[int64, error] {
	return func(yield func(int64, error) bool) {
		for n := range count {
			if err := context.Cause(ctx); !yield(n, err) || err != nil {
				return
			}
		}
	}
}

// with gives the sums in which those that were read take the place of the old.
func (s *Sums) with(read []chunk) *Sums {
	u := &Sums{size: s.size, chunks: make([]chunk, 0, max(len(read), len(s.chunks)))}
	old := s.chunks
	for _, c := range read {
		i, found := slices.BinarySearchFunc(old, c.number, func(o chunk, n int64) int { return cmp.Compare(o.number, n) })
		u.chunks = append(u.chunks, old[:i]...)
		if old = old[i:]; found {
			old = old[1:]
		}
		if c.sum != ([sha256.Size]byte{}) {
			u.chunks = append(u.chunks, c)
		}
	}
	u.chunks = append(u.chunks, old...)
	return u
}

func chunkCount(size int64) int64 {
	n := size / Chunk
	if size%Chunk != 0 {
		n++
	}
	return n
}

// checkData refuses an image with more chunks of data than make up [MaxData].
func checkData(f *os.File, chunks int64) error {
	if chunks <= MaxData/Chunk {
		return nil
	}
	return fault.New(fault.Image,
		"use a smaller image: free what is not needed in it (fstrim), and copy it with cp --sparse=always",
		"digest %s: more than %d TiB of it are data", f.Name(), MaxData>>40)
}

// Reader gives what r gives until the context ends, and then its cause. step is
// told how many more bytes were read.
func Reader(ctx context.Context, r io.Reader, step func(n int)) io.Reader {
	return reader{ctx, r, step}
}

type reader struct {
	ctx  context.Context
	r    io.Reader
	step func(n int)
}

func (r reader) Read(b []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	n, err := r.r.Read(b)
	r.step(n)
	return n, err
}
