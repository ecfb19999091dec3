// Package compress reads what kernels and people compress: initrds, images.
//
// A stranger made these bytes. No more memory is taken than a window of [Window]
// bytes needs, whatever they ask for, and a library that panics is their fault, never
// the program's. How much they unpack to is for the caller to bound.
package compress

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"
)

// Window is how far the memory of a decompressor may reach back: that of
// xz -9 and of zstd --long, and more than a kernel gives.
const Window = 128 << 20

// HeadSize is how many bytes of a file [Of] wants to see.
const HeadSize = 6

// ErrUnknown is the error for a way to compress that is known by name only.
var ErrUnknown = errors.New("imgmut cannot unpack that")

// Method is a way to compress that kernels know (CONFIG_RD_*). The zero one is none.
type Method struct {
	Name  string
	magic string
	// NoEnd says that nothing tells a whole file from one that was cut off.
	NoEnd bool
	// open gives what is compressed. It is read to its end, and in is then at the
	// first byte behind it. nil if imgmut cannot.
	open func(in *bufio.Reader) (plain io.Reader, end func(), err error)
}

var methods = []Method{
	{Name: "gzip", magic: "\x1f\x8b", open: openGzip},
	{Name: "zstd", magic: magicZstd, open: openZstd},
	{Name: "xz", magic: "\xfd7zXZ\x00", open: openXZ},
	{Name: "lz4", magic: "\x02\x21\x4c\x18", open: openLegacyLZ4, NoEnd: true},
	{Name: "lz4", magic: "\x04\x22\x4d\x18", open: openLZ4},
	{Name: "lzma", magic: "\x5d\x00\x00", open: openLZMA},
	{Name: "bzip2", magic: "BZh", open: openBzip2},
	{Name: "lzo", magic: "\x89LZO\x00"},
}

// Of gives the method of a file that begins so.
func Of(head []byte) Method {
	for _, m := range methods {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m
		}
	}
	if isSkippable(head) {
		return Of([]byte(magicZstd))
	}
	return Method{}
}

const magicZstd = "\x28\xb5\x2f\xfd"

// isSkippable says whether a frame begins here that says nothing (RFC 8878, 3.1.2), as
// programs put them between those of zstd.
func isSkippable(head []byte) bool {
	return len(head) >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18"
}

// Open gives what one stream holds. It is to be read to its end, which leaves in at the
// first byte behind it, and then end is to be called. It is [ErrUnknown] if imgmut
// cannot.
func (m Method) Open(in *bufio.Reader) (plain io.Reader, end func(), err error) {
	if m.open == nil {
		return nil, nil, fmt.Errorf("%s: %w", m.Name, ErrUnknown)
	}
	r, end, err := m.open(in)
	return guarded{r}, end, err
}

// guarded is a library's reader that does not panic.
type guarded struct{ io.Reader }

func (g guarded) Read(b []byte) (n int, err error) {
	defer func() {
		if p := recover(); p != nil {
			n, err = 0, fmt.Errorf("%v", p)
		}
	}()
	return g.Reader.Read(b)
}

// Reader gives what a whole file holds: streams of one method, one after the other, as
// programs leave them that use all cores. Close it.
type Reader struct {
	method Method
	source *tally
	in     *bufio.Reader // over source
	plain  io.Reader     // of the stream that is being read
	began  int64         // where that is in the file
	count  uint64        // of streams so far
	out    int64         // bytes
	end    func()
}

// tally counts what is read.
type tally struct {
	io.Reader
	n int64
}

func (t *tally) Read(b []byte) (int, error) {
	n, err := t.Reader.Read(b)
	t.n += int64(n)
	return n, err
}

// NewReader is the reader of a file that is compressed so.
func (m Method) NewReader(r io.Reader) (*Reader, error) {
	z := &Reader{method: m, source: &tally{Reader: r}, end: nothing}
	z.in = bufio.NewReaderSize(z.source, 1<<20)
	return z, z.next()
}

// at is how much of the file was taken.
func (z *Reader) at() int64 { return z.source.n - int64(z.in.Buffered()) }

func (z *Reader) next() (err error) {
	z.count++
	if err := enough(z.count, z.out); err != nil {
		return err
	}
	z.began = z.at()
	plain, end, err := z.method.Open(z.in)
	if err != nil {
		return err
	}
	z.plain, z.end = plain, end
	return nil
}

// Read implements [io.Reader].
func (z *Reader) Read(b []byte) (int, error) {
	for {
		n, err := z.plain.Read(b)
		z.out += int64(n)
		if err != io.EOF {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
		if err := z.behind(); err != nil {
			return 0, err
		}
	}
}

// behind goes to the next stream. It is io.EOF behind the last.
func (z *Reader) behind() error {
	if z.at() == z.began { // a library may take what is no stream for the end, and so for ever
		return io.ErrUnexpectedEOF
	}
	for {
		head, err := z.in.Peek(HeadSize)
		switch {
		case len(head) == 0:
			return err
		case head[0] == 0: // what fills up the last block of a tape, or makes an xz file longer
			_, _ = z.in.Discard(1)
		case Of(head).Name == z.method.Name:
			z.end()
			z.end = nothing
			return z.next()
		default:
			return errors.New("there is something else behind its end")
		}
	}
}

// Close gives back what the reader has taken.
func (z *Reader) Close() error {
	z.end()
	z.end = nothing
	return nil
}

func nothing() {}

func openGzip(in *bufio.Reader) (io.Reader, func(), error) {
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, nil, err
	}
	z.Multistream(false)
	return z, nothing, nil
}

// openBzip2 takes all that follows: the library looks for further streams itself.
func openBzip2(in *bufio.Reader) (io.Reader, func(), error) { return bzip2.NewReader(in), nothing, nil }

func openLZMA(in *bufio.Reader) (io.Reader, func(), error) {
	z, err := lzma.ReaderConfig{DictCap: Window}.NewReader(in)
	return z, nothing, err
}

// openZstd reads one frame (RFC 8878, 3.1.1), of which it finds the end itself:
// the library reads on, to see whether there is another.
func openZstd(in *bufio.Reader) (io.Reader, func(), error) {
	if head, err := in.Peek(8); err == nil && isSkippable(head) {
		if _, err := io.CopyN(io.Discard, in, 8+int64(binary.LittleEndian.Uint32(head[4:]))); err != nil {
			return nil, nil, noEOF(err)
		}
		return strings.NewReader(""), nothing, nil
	}
	z, err := zstd.NewReader(&frame{in: in, next: zstdHeader},
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(Window), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, nil, err
	}
	return z, z.Close, nil
}

// frame is the bytes of one frame, part by part.
type frame struct {
	in   *bufio.Reader
	left int64 // of the part that is being given
	next part  // nil behind the last
}

// part says how long a part of a frame is, and what comes behind it.
type part func(in *bufio.Reader) (size int64, next part, err error)

// bytesOf is a part of a known size.
func bytesOf(size int64) part {
	return func(*bufio.Reader) (int64, part, error) { return size, nil, nil }
}

func (f *frame) Read(b []byte) (n int, err error) {
	for f.left == 0 {
		if f.next == nil {
			return 0, io.EOF
		}
		if f.left, f.next, err = f.next(f.in); err != nil {
			return 0, noEOF(err)
		}
	}
	n, err = f.in.Read(b[:min(int64(len(b)), f.left)])
	f.left -= int64(n)
	return n, noEOF(err)
}

func zstdHeader(in *bufio.Reader) (int64, part, error) {
	head, err := in.Peek(5)
	if err != nil {
		return 0, nil, err
	}
	flags := head[4]
	size := 5 + int64([4]int{0, 1, 2, 4}[flags&3]) + int64([4]int{0, 2, 4, 8}[flags>>6])
	if flags&0x20 == 0 || flags>>6 == 0 { // a window's size, or a content's of one byte
		size++
	}
	sum := int64(flags & 4) // bytes of the checksum behind the last block
	return size, zstdBlock(sum), nil
}

func zstdBlock(sum int64) part {
	return func(in *bufio.Reader) (int64, part, error) {
		head, err := in.Peek(3)
		if err != nil {
			return 0, nil, err
		}
		v := int64(head[0]) | int64(head[1])<<8 | int64(head[2])<<16
		size := 3 + v>>3
		if v>>1&3 == 1 { // one byte, repeated
			size = 4
		}
		if v&1 != 0 {
			return size, bytesOf(sum), nil
		}
		return size, zstdBlock(sum), nil
	}
}

// openLZ4 reads one frame (LZ4 Frame Format Description, 1.6.2).
func openLZ4(in *bufio.Reader) (io.Reader, func(), error) {
	return lz4.NewReader(&frame{in: in, next: lz4Header}), nothing, nil
}

func lz4Header(in *bufio.Reader) (int64, part, error) {
	head, err := in.Peek(5)
	if err != nil {
		return 0, nil, err
	}
	const blockSums, contentSize, contentSum, dictionary = 0x10, 0x08, 0x04, 0x01
	flags := head[4]
	size := int64(7)
	if flags&contentSize != 0 {
		size += 8
	}
	if flags&dictionary != 0 {
		size += 4
	}
	return size, lz4Block(int64(flags&blockSums)/4, int64(flags&contentSum)), nil
}

// lz4Block is a block with its checksum, or the mark behind the last and the
// checksum of all.
func lz4Block(blockSum, contentSum int64) part {
	return func(in *bufio.Reader) (int64, part, error) {
		head, err := in.Peek(4)
		if err != nil {
			return 0, nil, err
		}
		const notCompressed = 1 << 31
		size := int64(binary.LittleEndian.Uint32(head) &^ notCompressed)
		if size == 0 {
			return 4, bytesOf(contentSum), nil
		}
		return 4 + size + blockSum, lz4Block(blockSum, contentSum), nil
	}
}

// openLegacyLZ4 reads the form that kernels read: blocks, each with its size,
// to the end of the file or to what can be no size.
func openLegacyLZ4(in *bufio.Reader) (io.Reader, func(), error) {
	if _, err := in.Discard(4); err != nil {
		return nil, nil, err
	}
	return &legacyLZ4{in: in}, nothing, nil
}

// legacyBlock is what a block unpacks to at most, in bytes.
const legacyBlock = 8 << 20

type legacyLZ4 struct {
	in          *bufio.Reader
	plain, rest []byte
}

func (l *legacyLZ4) Read(b []byte) (int, error) {
	for len(l.rest) == 0 {
		head, err := l.in.Peek(4)
		if err != nil {
			return 0, io.EOF // nothing, or the zeros that fill up an archive
		}
		size := int64(binary.LittleEndian.Uint32(head))
		if size == 0 || size > int64(lz4.CompressBlockBound(legacyBlock)) {
			return 0, io.EOF
		}
		block := make([]byte, size)
		_, _ = l.in.Discard(4)
		if _, err := io.ReadFull(l.in, block); err != nil {
			return 0, io.ErrUnexpectedEOF
		}
		if l.plain == nil {
			l.plain = make([]byte, legacyBlock)
		}
		n, err := lz4.UncompressBlock(block, l.plain)
		if err != nil {
			return 0, err
		}
		l.rest = l.plain[:n]
	}
	n := copy(b, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

// noEOF makes an end where none may be an error.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
