package bootc

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// below is something of the layers below.
type below struct {
	header *tar.Header
	data   io.ReadCloser // of a file, nil of all else
}

// lower gives something that the layers below made, nil if they did not.
func (w *filter) lower(name string) (*below, error) {
	if w.Lower == nil || name == "" {
		return nil, nil
	}
	fi, err := w.Lower.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, bad(name, "%v", err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(0, 0),
	}
	b := &below{header: h}
	switch {
	case fi.Mode()&fs.ModeSymlink != 0:
		h.Typeflag = tar.TypeSymlink
		h.Linkname, err = w.Lower.Readlink(name)
		return b, err
	case fi.IsDir():
		h.Typeflag = tar.TypeDir
	case fi.Mode().IsRegular():
		h.Typeflag, h.Size = tar.TypeReg, fi.Size()
	default:
		return nil, nil
	}
	f, err := w.Lower.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, bad(name, "%v", err)
	}
	attributes, err := readXattrs(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	for key, value := range attributes {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrRecord+key] = value
	}
	if h.Typeflag == tar.TypeDir {
		return b, f.Close()
	}
	b.data = f
	return b, nil
}

// readXattrs reads the extended attributes of an open file.
func readXattrs(f *os.File) (map[string]string, error) {
	fd := int(f.Fd())
	names := make([]byte, 64<<10) // no list is longer (xattr(7))
	n, err := unix.Flistxattr(fd, names)
	if err != nil || n == 0 {
		return nil, err
	}
	all := map[string]string{}
	value := make([]byte, 64<<10)
	for name := range bytes.SplitSeq(bytes.TrimSuffix(names[:n], []byte{0}), []byte{0}) {
		n, err := unix.Fgetxattr(fd, string(name), value)
		if err != nil {
			return nil, err
		}
		all[string(name)] = string(value[:n])
	}
	return all, nil
}
