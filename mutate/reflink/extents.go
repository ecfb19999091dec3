package reflink

import (
	"context"
	"fmt"
	"iter"
	"math"
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
	return ExtentsIn(ctx, f, Range{0, math.MaxInt64})
}

// ExtentsIn is [Extents] for a part of f. Extents that reach beyond it are cut.
func ExtentsIn(ctx context.Context, f *os.File, part Range) iter.Seq2[Extent, error] {
	end := part.Offset + part.Length
	return func(yield func(Extent, error) bool) {
		m := new(fiemap)
		for start := part.Offset; start < end; {
			if err := m.read(ctx, f, Range{start, end - start}); err != nil {
				yield(Extent{}, fmt.Errorf("map extents of %s: %w", f.Name(), err))
				return
			}
			for _, e := range m.extents[:m.mapped] {
				more := yield(e.cut(part), nil)
				if !more || e.flags&fiemapLast != 0 {
					return
				}
				start = int64(e.logical + e.length)
			}
			if m.mapped == 0 {
				return
			}
		}
	}
}

// cut gives what of an extent lies in a part of its file. Of one without a place on the
// disk the address says nothing, cut or not.
func (e fiemapExtent) cut(part Range) Extent {
	from := max(int64(e.logical), part.Offset)
	to := min(int64(e.logical+e.length), part.Offset+part.Length)
	return Extent{from, int64(e.physical) + from - int64(e.logical), to - from, e.flags}
}

// read fills m with the extents of a part of f.
func (m *fiemap) read(ctx context.Context, f *os.File, part Range) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	*m = fiemap{start: uint64(part.Offset), length: uint64(part.Length), flags: fiemapSync, count: perCall}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fiemapIoctl, uintptr(unsafe.Pointer(m))); errno != 0 {
		return errno
	}
	return nil
}
