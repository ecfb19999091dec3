// Package reflink makes files share extents, and copies sparsely where they cannot.
//
// A clone (FICLONE, ioctl_ficlone(2)) costs by the number of extents of its
// source, not by its size: a 20 GiB image with 4 GiB of data takes about 4 ms
// on XFS. Everything imgmut promises about speed rests on it, so [Clone] never
// falls back to a copy: where the kernel cannot clone, the caller hears
// [ErrUnsupported] and decides.
//
// [Copy] is that other decision, taken openly at the edges of the store (an
// import from another filesystem, an output file). It walks SEEK_DATA and
// SEEK_HOLE, because copy_file_range fills holes on filesystems that cannot
// reflink (37 s instead of 0.6 s for a 10 GiB image on ext4).
package reflink

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnsupported says that the filesystem, or the pair of them, cannot share
// extents. Callers branch on it to make a pool or to copy.
var ErrUnsupported = errors.New("reflink is not supported here")

// Clone makes the empty file dst share all extents of src and take its size.
// It never copies: where that is impossible it returns [ErrUnsupported]. A dst
// that is longer than src is refused, or would keep its end.
func Clone(dst, src *os.File) error {
	err := wrap("clone", dst, src, patiently(src, func() error { return ficlone(dst, src) }))
	if err != nil {
		return err
	}
	return sameSize(dst, src)
}

// ficlone is the one system call that everything rests on. A test answers in its place
// as filesystems do that this machine does not have.
var ficlone = func(dst, src *os.File) error { return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) }

// How often, and with what pauses in between, a clone is tried that cannot be made yet.
const (
	dirtyTries = 8
	dirtyPause = 5 * time.Millisecond
)

// patiently makes a clone where the filesystem shares only what is on the disk already:
// OpenZFS answers EAGAIN as long as a block of the source is not (zfs_bclone_wait_dirty
// in zfs(4)).
func patiently(src *os.File, clone func() error) error {
	err := clone()
	for n := range dirtyTries {
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
		if err := src.Sync(); err != nil {
			return fmt.Errorf("write out %s: %w", src.Name(), err)
		}
		time.Sleep(dirtyPause << n)
		err = clone()
	}
	return err
}

// sameSize says whether a clone is whole: OpenZFS before 2.2.3 could cut one off, and say
// that it is made.
func sameSize(dst, src *os.File) error {
	is, err := dst.Stat()
	if err != nil {
		return err
	}
	was, err := src.Stat()
	if err != nil {
		return err
	}
	if is.Size() != was.Size() {
		return fmt.Errorf("clone %s to %s: it has %d bytes, and its source %d", src.Name(), dst.Name(), is.Size(), was.Size())
	}
	return nil
}

// CloneRange makes length bytes of dst at dstOffset share the extents of src
// at srcOffset. Offsets must be multiples of the filesystem's block size, and
// so must length unless it ends at the end of src and at or beyond that of dst
// (ioctl_ficlonerange(2)).
func CloneRange(dst *os.File, dstOffset int64, src *os.File, srcOffset, length int64) error {
	if length == 0 {
		return nil // the kernel would take it for all up to the end of src
	}
	r := unix.FileCloneRange{
		Src_fd: int64(src.Fd()), Src_offset: uint64(srcOffset), Src_length: uint64(length), Dest_offset: uint64(dstOffset),
	}
	return wrap("clone range of", dst, src, patiently(src, func() error {
		return unix.IoctlFileCloneRange(int(dst.Fd()), &r)
	}))
}

// CloneFile clones the file src to the new file dst with the given mode, and
// removes dst again when that fails.
func CloneFile(dst, src string, mode os.FileMode) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, out.Close())
		if err != nil {
			os.Remove(dst)
		}
	}()
	return Clone(out, in)
}

// Probe tells whether files in dir can be cloned: nil if so, an error that
// wraps [ErrUnsupported] if not, another error if it could not be found out
// (a full or read-only filesystem), which says nothing about reflinks.
func Probe(dir string) (err error) {
	src, err := os.CreateTemp(dir, ".reflink-probe-")
	if err != nil {
		return fmt.Errorf("probe %s for reflinks: %w", dir, err)
	}
	defer os.Remove(src.Name())
	defer src.Close()
	// A whole block: some filesystems refuse to share less.
	if _, err := src.Write(make([]byte, 64<<10)); err != nil {
		return fmt.Errorf("probe %s for reflinks: %w", dir, err)
	}
	dst, err := os.CreateTemp(dir, ".reflink-probe-")
	if err != nil {
		return fmt.Errorf("probe %s for reflinks: %w", dir, err)
	}
	defer os.Remove(dst.Name())
	defer dst.Close()
	return Clone(dst, src)
}

// wrap gives the kernel's vague errnos the cause they most often have.
func wrap(op string, dst, src *os.File, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EXDEV):
		return fmt.Errorf("%s %s to %s: %w (%w: they are on different filesystems)", op, src.Name(), dst.Name(), err, ErrUnsupported)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%s %s to %s: %w (%w: the filesystem of %s cannot)",
			op, src.Name(), dst.Name(), err, ErrUnsupported, filepath.Dir(dst.Name()))
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s %s to %s: %w (%w: unaligned, or one of them has copy-on-write turned off)",
			op, src.Name(), dst.Name(), err, ErrUnsupported)
	}
	return fmt.Errorf("%s %s to %s: %w", op, src.Name(), dst.Name(), err)
}
