package compress

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"slices"

	"github.com/ulikunitz/xz/lzma"
)

// openXZ reads one stream (The .xz File Format, 1.2.1). It goes through the
// blocks itself: the library takes as much memory as each of them asks for.
func openXZ(in *bufio.Reader) (io.Reader, func(), error) {
	head := make([]byte, 12)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, nil, err
	}
	if le.Uint32(head[8:]) != crc32.ChecksumIEEE(head[6:8]) {
		return nil, nil, errors.New("the sum of its header is wrong")
	}
	return &xzStream{in: in, kind: head[7] & 15}, nothing, nil
}

var le = binary.LittleEndian

// xzSums are how a block is summed, by its kind, and how long each sum is. Of kinds that
// nobody uses only the length is known.
var (
	xzSums = map[byte]func() hash.Hash{
		1:  func() hash.Hash { return crc32.NewIEEE() },
		4:  func() hash.Hash { return crc64.New(crc64.MakeTable(crc64.ECMA)) },
		10: sha256.New,
	}
	xzSumSize = [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}
)

type xzStream struct {
	in     *bufio.Reader
	kind   byte      // of the blocks' sums
	block  io.Reader // nil between blocks
	sum    hash.Hash // of the block, nil if there is none
	count  *counter
	blocks uint64
	out    int64 // bytes
}

// enough says whether what a file unpacks to is worth its blocks, or streams, each of which
// can ask for a whole window of memory.
func enough(blocks uint64, out int64) error {
	const free, each = 64, 4096
	if blocks > free && int64(blocks-free) > out/each {
		return errors.New("it is of very many parts, and there is next to nothing in them")
	}
	return nil
}

func (x *xzStream) Read(b []byte) (int, error) {
	for {
		if x.block == nil {
			if err := x.next(); err != nil {
				return 0, err
			}
		}
		n, err := x.block.Read(b)
		x.out += int64(n)
		if x.sum != nil {
			x.sum.Write(b[:n])
		}
		if err == io.EOF {
			x.block = nil
			err = x.endBlock()
		}
		if n > 0 || err != nil {
			return n, noEOF(err)
		}
	}
}

// endBlock reads what is behind a block: zeros, and its sum.
func (x *xzStream) endBlock() error {
	if _, err := io.CopyN(io.Discard, x.in, -x.count.n&3); err != nil {
		return err
	}
	want := make([]byte, xzSumSize[x.kind])
	if _, err := io.ReadFull(x.in, want); err != nil {
		return err
	}
	if x.sum == nil {
		return nil
	}
	is := x.sum.Sum(nil)
	if len(is) < sha256.Size { // numbers are little-endian here, and the library's are not
		slices.Reverse(is)
	}
	if !bytes.Equal(is, want) {
		return errors.New("the sum of a block is wrong")
	}
	return nil
}

// next begins the next block, or reads the index behind the last.
func (x *xzStream) next() error {
	size, err := x.in.ReadByte()
	if err != nil {
		return noEOF(err)
	}
	if size == 0 {
		return x.index()
	}
	head := make([]byte, int(size)*4+4) // and its checksum
	head[0] = size
	if _, err := io.ReadFull(x.in, head[1:]); err != nil {
		return noEOF(err)
	}
	body := head[:len(head)-4]
	if le.Uint32(head[len(body):]) != crc32.ChecksumIEEE(body) {
		return errors.New("the sum of a block's header is wrong")
	}
	dict, err := xzWindow(body[1:])
	if err != nil {
		return err
	}
	x.blocks++
	if err := enough(x.blocks, x.out); err != nil {
		return err
	}
	if x.sum = nil; xzSums[x.kind] != nil {
		x.sum = xzSums[x.kind]()
	}
	x.count = &counter{in: x.in}
	x.block, err = lzma.Reader2Config{DictCap: dict}.NewReader2(x.count)
	return err
}

// xzWindow gives how far a block reaches back, by the flags of its only filter.
func xzWindow(head []byte) (int, error) {
	flags, r := head[0], bytes.NewReader(head[1:])
	for bit := byte(0x40); bit != 0; bit <<= 1 { // both sizes
		if flags&bit != 0 {
			if _, err := binary.ReadUvarint(r); err != nil {
				return 0, err
			}
		}
	}
	var filter [3]byte
	if _, err := io.ReadFull(r, filter[:]); err != nil || flags&3 != 0 || filter[0] != 0x21 || filter[1] != 1 {
		return 0, errors.New("it is filtered by something else than LZMA2")
	}
	bits := filter[2]
	if bits > 40 {
		return 0, errors.New("its window has no size")
	}
	dict := int64(2|bits&1) << (bits/2 + 11)
	if dict > Window {
		return 0, fmt.Errorf("its window is of %d MiB", dict>>20)
	}
	return int(dict), nil
}

// index reads the list of blocks and what is behind it. It is io.EOF if they are
// there.
func (x *xzStream) index() error {
	c := &counter{in: x.in, n: 1, sum: crc32.NewIEEE()}
	c.sum.Write([]byte{0})
	blocks, err := binary.ReadUvarint(c)
	if err != nil || blocks != x.blocks {
		return errors.New("its index is of other blocks")
	}
	for range 2 * blocks {
		if _, err := binary.ReadUvarint(c); err != nil {
			return noEOF(err)
		}
	}
	if _, err := io.CopyN(io.Discard, c, -c.n&3); err != nil {
		return noEOF(err)
	}
	const checksum, footer = 4, 12
	end := make([]byte, checksum+footer)
	if _, err := io.ReadFull(x.in, end); err != nil {
		return noEOF(err)
	}
	if le.Uint32(end) != c.sum.Sum32() || le.Uint32(end[4:]) != crc32.ChecksumIEEE(end[8:14]) || string(end[14:]) != "YZ" {
		return errors.New("its index or its end is damaged")
	}
	return io.EOF
}

// counter counts what is read.
type counter struct {
	in  *bufio.Reader
	n   int64
	sum hash.Hash32 // of it, nil if nobody wants to know
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.in.Read(b)
	c.n += int64(n)
	if c.sum != nil {
		c.sum.Write(b[:n])
	}
	return n, err
}

func (c *counter) ReadByte() (byte, error) {
	b, err := c.in.ReadByte()
	if err == nil {
		c.n++
		if c.sum != nil {
			c.sum.Write([]byte{b})
		}
	}
	return b, err
}
