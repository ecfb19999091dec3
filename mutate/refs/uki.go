package refs

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/imgmut/imgmut/mutate/fault"
)

// ukiFiles are where unified kernel images and their add-ons lie on an EFI
// system partition or a /boot of its own (UAPI.1 Boot Loader Specification,
// type #2; systemd-stub(7)).
var ukiFiles = []string{
	"EFI/*/*.efi", "EFI/Linux/*.efi.extra.d/*.addon.efi", "loader/addons/*.addon.efi",
}

// uki is what a unified kernel image says to kernels: its sections .cmdline, of
// which one with several profiles has several (UAPI.5 Unified Kernel Image).
type uki struct {
	lines  []commandLine
	signed bool // for Secure Boot: no byte can change
}

type commandLine struct {
	text   string
	offset int64 // of the text in the file
}

// maxCommandLine is more than a kernel takes, in bytes, and maxProfiles more than
// anybody chooses from.
const (
	maxCommandLine = 64 << 10
	maxProfiles    = 32
)

// maxHead is how much of the start of a PE file is read to find its sections.
const maxHead = 64 << 10

// readUKI reads the command lines of a PE file; it has none if it is no such
// file.
func readUKI(t fs.FS, name string) (u uki) {
	f, err := t.Open(name)
	if err != nil {
		return u
	}
	defer f.Close()
	r, ok := f.(io.ReadSeeker)
	if !ok {
		return u
	}
	head, err := io.ReadAll(io.LimitReader(r, maxHead))
	if err != nil || len(head) < 0x40 {
		return u
	}
	// Symbols, which no image for firmware needs, could lie anywhere in the file
	// and be of any number: debug/pe is to look for none.
	if header := int64(binary.LittleEndian.Uint32(head[0x3c:])); header+20 <= int64(len(head)) {
		clear(head[header+12 : header+20])
	}
	program, err := pe.NewFile(bytes.NewReader(head))
	if err != nil {
		return u
	}
	u.signed = isSigned(program)
	for _, s := range program.Sections {
		if s.Name != ".cmdline" || len(u.lines) == maxProfiles {
			continue
		}
		text := make([]byte, min(s.Size, s.VirtualSize, maxCommandLine))
		if _, err := r.Seek(int64(s.Offset), io.SeekStart); err != nil {
			continue
		}
		if _, err := io.ReadFull(r, text); err != nil {
			continue
		}
		text, _, _ = bytes.Cut(text, []byte{0})
		u.lines = append(u.lines, commandLine{string(text), int64(s.Offset)})
	}
	return u
}

// isSigned looks for a certificate table (PE Format, "The Attribute Certificate
// Table").
func isSigned(program *pe.File) bool {
	const security = pe.IMAGE_DIRECTORY_ENTRY_SECURITY
	switch h := program.OptionalHeader.(type) {
	case *pe.OptionalHeader64:
		return h.DataDirectory[security].Size > 0
	case *pe.OptionalHeader32:
		return h.DataDirectory[security].Size > 0
	}
	return false
}

// maxUKI is the largest unified kernel image that is changed, in bytes.
const maxUKI = 512 << 20

// rewrite gives the bytes of the file with what change makes of its command
// lines, nil if that is nothing. change must keep lengths.
func (u uki) rewrite(t fs.FS, name string, change func(string) string) ([]byte, error) {
	stale := slices.ContainsFunc(u.lines, func(l commandLine) bool { return change(l.text) != l.text })
	if !stale {
		return nil, nil
	}
	if u.signed {
		return nil, fault.New(fault.Image,
			"name the partition by what is in it, with UUID= or LABEL=, or sign when the image is made",
			"%s is signed, and its kernel command line names a partition by its UUID, which every image has anew", name)
	}
	fi, err := fs.Stat(t, name)
	if err != nil {
		return nil, err
	}
	if fi.Size() > maxUKI {
		return nil, fmt.Errorf("change the kernel command line in %s: %d bytes are too many for a kernel", name, fi.Size())
	}
	b, err := fs.ReadFile(t, name)
	if err != nil {
		return nil, err
	}
	for _, l := range u.lines {
		fresh := change(l.text)
		if len(fresh) != len(l.text) || l.offset+int64(len(fresh)) > int64(len(b)) {
			return nil, fmt.Errorf("change the kernel command line in %s: it has no room", name)
		}
		copy(b[l.offset:], fresh)
	}
	return b, nil
}
