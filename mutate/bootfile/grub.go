package bootfile

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// GRUB for BIOS boots by a core image: one sector that reads the others, then a
// program that unpacks what is behind it, the kernel and the modules, among them
// a configuration that says where the rest is. It is LZMA without a header, with
// one fixed set of parameters (grub-mkimage). The sizes are in the unpacker, but
// not where its own end is: so it is tried where it may be.
const (
	sector      = 512
	maxUnpacker = 8 << 10  // bytes
	maxCore     = 16 << 20 // bytes, unpacked
)

// lzmaHeader is what LZMA has before its data, in a file of its own: lc=3, lp=0,
// pb=2, the window, the size.
func lzmaHeader(window uint32, size uint64) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{2*9*5 + 3}, window)
	return binary.LittleEndian.AppendUint64(b, size)
}

func isCore(head []byte) bool {
	packed, plain := coreSizes(head)
	return packed > 0 && plain > packed && plain <= maxCore
}

func coreSizes(head []byte) (packed, plain uint32) {
	const jump = 0xea // to a far address, by which the unpacker begins
	if len(head) < 2*sector || head[sector] != jump || bytes.HasPrefix(head, []byte("MZ")) {
		return 0, 0
	}
	b := head[sector:]
	return binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
}

// core gives a core image of GRUB as it is, and unpacked.
func (w *walker) core(in *bufio.Reader, head []byte) error {
	_, plain := coreSizes(head)
	at := findCore(head, plain)
	if at == 0 {
		w.Unread("", "it is like GRUB's core image, and cannot be unpacked")
		return w.rest(in)
	}
	if err := w.plain(in, int64(at)); err != nil {
		return err
	}
	z, err := lzma.ReaderConfig{DictCap: maxCore}.NewReader(
		io.MultiReader(bytes.NewReader(lzmaHeader(plain, uint64(plain))), in))
	if err != nil {
		return &damageError{"GRUB's core image", err}
	}
	if err := w.Content("", &unpacked{w: w, name: "GRUB's core image", r: z}); err != nil {
		return err
	}
	return w.rest(in)
}

// findCore finds where the compressed part begins, 0 if nowhere: where a page of
// it can be unpacked. Other bytes soon refer to what was not there.
func findCore(head []byte, plain uint32) int {
	const page, ahead = 4 << 10, 64 << 10 // bytes; the library unpacks more than it is asked for
	out := make([]byte, min(page, plain))
	for at := 2 * sector; at < min(sector+maxUnpacker, len(head)); at++ {
		if head[at] != 0 { // as all such data begins
			continue
		}
		z, err := lzma.ReaderConfig{DictCap: maxCore}.NewReader(
			io.MultiReader(bytes.NewReader(lzmaHeader(ahead, uint64(plain))), bytes.NewReader(head[at:])))
		if err != nil {
			continue
		}
		if _, err := io.ReadFull(z, out); err == nil {
			return at
		}
	}
	return 0
}
