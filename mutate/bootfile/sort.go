package bootfile

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"github.com/imgmut/imgmut/mutate/compress"
)

// HeadSize is how much of a file [NoKernel] and [NoInitrd] want to see.
const HeadSize = 4096

// kernelMagics are what kernels, and what boot loaders take for one, have at an offset:
// the boot protocol of x86, EFI programs, Image of arm64 and RISC-V, zImage of ARM, ELF,
// U-Boot's images.
var kernelMagics = []struct {
	offset int
	magic  string
}{
	{0x202, "HdrS"}, {0, "MZ"}, {0x38, "ARM\x64"}, {0x30, "RISCV"}, {0x38, "RSC\x05"}, {0x24, "\x18\x28\x6f\x01"},
	{0, "\x7fELF"}, {0, magicUImage}, {0, magicFIT}, {0, "ANDROID!"},
}

const (
	magicUImage = "\x27\x05\x19\x56"
	magicFIT    = "\xd0\x0d\xfe\xed"
	// smallestKernel is less than any kernel has, in bytes: of those that are known by
	// nothing else.
	smallestKernel = 64 << 10
)

// NoKernel says why a file that begins so, and has that size, is no kernel, "" if it is
// one or may be: there are more forms of them than are known here.
func NoKernel(head []byte, size int64) string {
	for _, m := range kernelMagics {
		if has(head, m.offset, m.magic) {
			return ""
		}
	}
	switch {
	case compress.Of(head).Name != "":
		return ""
	case isText(head):
		return "is a text and no kernel"
	case size < smallestKernel:
		return "is too small for a kernel"
	}
	return ""
}

// NoInitrd says why a file that begins so is no initrd, "" if it is one: an archive, as it
// is or compressed, a filesystem, or what U-Boot has such a thing in.
func NoInitrd(head []byte) string {
	begin := bytes.TrimLeft(head, "\x00") // which the kernel passes over
	switch {
	case len(begin) == 0 && len(head) == HeadSize, isCpio(begin), compress.Of(begin).Name != "":
		return ""
	case has(head, 0, magicUImage), has(head, 0, magicFIT), isPE(head), isFilesystem(head):
		return ""
	case isText(head):
		return "is a text and no initrd"
	}
	return "is neither a cpio archive nor compressed"
}

// isFilesystem says whether the kernel takes the file for a RAM disk (identify_ramdisk_image
// in its source): romfs, cramfs, squashfs, minix, ext2.
func isFilesystem(head []byte) bool {
	minix := len(head) > 1042 && bytes.Contains([]byte("\x7f\x13\x8f\x13\x68\x24\x78\x24"), head[1040:1042])
	return filesystemIn(head) != "" || has(head, 0, "-rom1fs-") || minix ||
		len(head) > 4 && (binary.LittleEndian.Uint32(head) == 0x28cd3d45 || binary.BigEndian.Uint32(head) == 0x28cd3d45)
}

func has(head []byte, offset int, magic string) bool {
	return len(head) >= offset && bytes.HasPrefix(head[offset:], []byte(magic))
}

// isText says whether bytes are letters and what stands between them.
func isText(head []byte) bool {
	text := string(head)
	for range utf8.UTFMax { // the last letter may be cut
		if utf8.ValidString(text) || text == "" {
			break
		}
		text = text[:len(text)-1]
	}
	return len(text) > 0 && utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return r < ' ' && !strings.ContainsRune("\t\n\v\f\r\x1b", r)
	})
}
