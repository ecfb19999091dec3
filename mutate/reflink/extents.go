package reflink

import (
	"context"
	"fmt"
	"iter"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Extent is one mapping of a file's bytes to the disk (FIEMAP,
// Documentation/filesystems/fiemap.rst).
type Extent struct {
	Logical, Physical, Length int64 // bytes
	Flags                     uint32
}

// Flags of an [Extent] (linux/fiemap.h).
const (
	ExtentUnknown  = 0x2    // no location yet
	ExtentDelalloc = 0x4    // not written out
	ExtentEncoded  = 0x8    // compressed: physical bytes are not file bytes
	ExtentInline   = 0x200  // among the metadata
	ExtentShared   = 0x2000 // another file refers to it too
)

const (
	fiemapSync = 0x1
	fiemapLast = 0x1
	// fiemapIoctl is FS_IOC_FIEMAP, _IOWR('f', 11, struct fiemap).
	fiemapIoctl = 0xC020660B
	perCall     = 1024
)

type fiemap struct {
	start, length                  uint64
	flags, mapped, count, reserved uint32
	extents                        [perCall]fiemapExtent
}

type fiemapExtent struct {
	logical, physical, length uint64
	reserved64                [2]uint64
	flags                     uint32
	reserved                  [3]uint32
}

// Extents gives where the data of f lies, in order, and ends with an error if
// that cannot be told or ctx ends. They are not held: a file may have many
// millions. Dirty data is written out first: without that, a block that was
// just overwritten still shows the old, shared place.
func Extents(ctx context.Context, f *os.File) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		m := new(fiemap)
		for start := uint64(0); ; {
			if err := m.read(ctx, f, start); err != nil {
				yield(Extent{}, fmt.Errorf("map extents of %s: %w", f.Name(), err))
				return
			}
			for _, e := range m.extents[:m.mapped] {
				more := yield(Extent{int64(e.logical), int64(e.physical), int64(e.length), e.flags}, nil)
				if !more || e.flags&fiemapLast != 0 {
					return
				}
				start = e.logical + e.length
			}
			if m.mapped == 0 {
				return
			}
		}
	}
}

// read fills m with the extents of f from the byte start on.
func (m *fiemap) read(ctx context.Context, f *os.File, start uint64) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	*m = fiemap{start: start, length: ^uint64(0) - start, flags: fiemapSync, count: perCall}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fiemapIoctl, uintptr(unsafe.Pointer(m))); errno != 0 {
		return errno
	}
	return nil
}
