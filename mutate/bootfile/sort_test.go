package bootfile_test

import (
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/bootfile"
)

// at puts bytes behind so many others.
func at(offset int, magic string) string { return strings.Repeat("\x90", offset) + magic }

// TestNoKernel: what begins like one of any sort is a kernel, and what is not known but
// large and no text may be.
func TestNoKernel(t *testing.T) {
	const text, small = "is a text and no kernel", "is too small for a kernel"
	for _, tc := range []struct {
		name, head string
		size       int64
		want       string
	}{
		{"bzImage", at(0x202, "HdrS"), 8 << 20, ""},
		{"a program of EFI", "MZ\x90", 8 << 20, ""},
		{"arm64", at(0x38, "ARM\x64"), 8 << 20, ""},
		{"RISC-V", at(0x30, "RISCV\x00\x00\x00"), 8 << 20, ""},
		{"ARM", at(0x24, "\x18\x28\x6f\x01"), 8 << 20, ""},
		{"ELF", "\x7fELF", 8 << 20, ""},
		{"U-Boot", "\x27\x05\x19\x56", 8 << 20, ""},
		{"compressed", "\x1f\x8b\x08", 100, ""},
		{"unknown", "\x01\x02\x03", 8 << 20, ""},
		{"unknown and small", "\x01\x02\x03", 1000, small},
		{"a letter", "x", 1, text},
		{"a long text", strings.Repeat("kernel ä\n", 455), 8 << 20, text},
		{"a text that is cut in a letter", "kernel \xc3", 8 << 20, text},
		{"a magic that is cut", at(0x202, "Hdr"), 1000, small},
	} {
		if got := bootfile.NoKernel([]byte(tc.head), tc.size); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestNoInitrd: an initrd is an archive or a filesystem, or something that holds one.
func TestNoInitrd(t *testing.T) {
	const none = "is neither a cpio archive nor compressed"
	for _, tc := range []struct{ name, head, want string }{
		{"cpio", "070701", ""},
		{"behind zeros", "\x00\x00\x00\x00070701", ""},
		{"gzip", "\x1f\x8b", ""},
		{"zstd", "\x28\xb5\x2f\xfd", ""},
		{"lzo", "\x89LZO\x00", ""},
		{"zeros", strings.Repeat("\x00", bootfile.HeadSize), ""},
		{"ext2", at(1080, "\x53\xef"), ""},
		{"squashfs", "hsqs", ""},
		{"minix", at(1040, "\x8f\x13\x00"), ""},
		{"cramfs", "\x45\x3d\xcd\x28\x00", ""},
		{"U-Boot", "\x27\x05\x19\x56", ""},
		{"zeros alone", "\x00\x00", none},
		{"a letter", "x", "is a text and no initrd"},
		{"a kernel", at(0x202, "HdrS"), none},
		{"a magic that is cut", "07070", "is a text and no initrd"},
	} {
		if got := bootfile.NoInitrd([]byte(tc.head)); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}
