package compress

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// openXZ reads one stream (The .xz File Format, 1.2.1). It goes through the
// blocks itself: the library takes as much memory as each of them asks for.
func openXZ(in *bufio.Reader) (io.Reader, func(), error) {
	head := make([]byte, 12)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, nil, err
	}
	return &xzStream{in: in, check: [16]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[head[7]&15]}, nothing, nil
}

type xzStream struct {
	in     *bufio.Reader
	check  int64     // bytes of the checksum behind a block
	block  io.Reader // nil between blocks
	count  *counter
	blocks uint64
}

func (x *xzStream) Read(b []byte) (int, error) {
	for {
		if x.block == nil {
			if err := x.next(); err != nil {
				return 0, err
			}
		}
		n, err := x.block.Read(b)
		if err == io.EOF {
			x.block = nil
			_, err = io.CopyN(io.Discard, x.in, -x.count.n&3+x.check)
		}
		if n > 0 || err != nil {
			return n, noEOF(err)
		}
	}
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
	head := make([]byte, int(size)*4+3) // and its checksum
	if _, err := io.ReadFull(x.in, head); err != nil {
		return noEOF(err)
	}
	dict, err := xzWindow(head)
	if err != nil {
		return err
	}
	x.blocks++
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
	c := &counter{in: x.in, n: 1}
	blocks, err := binary.ReadUvarint(c)
	if err != nil || blocks != x.blocks {
		return errors.New("its index is of other blocks")
	}
	for range 2 * blocks {
		if _, err := binary.ReadUvarint(c); err != nil {
			return noEOF(err)
		}
	}
	const checksum, footer = 4, 12
	if _, err := io.CopyN(io.Discard, x.in, -c.n&3+checksum+footer); err != nil {
		return noEOF(err)
	}
	return io.EOF
}

// counter counts what is read.
type counter struct {
	in *bufio.Reader
	n  int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.in.Read(b)
	c.n += int64(n)
	return n, err
}

func (c *counter) ReadByte() (byte, error) {
	b, err := c.in.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}
