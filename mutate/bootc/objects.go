package bootc

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Images that rpm-ostree makes (Fedora, CentOS, RHEL, and all that are built FROM them)
// hold a commit with all its objects, below sysroot/ostree/repo/objects, and their tree is
// hard links to these. A layer has each object that its files need.

// ofRepository takes what an image has of a repository of its own. Of that only files
// matter, and only until they have a name.
func (w *filter) ofRepository(h *tar.Header) error {
	name := path.Clean("/" + h.Name)[1:]
	if !strings.HasPrefix(name, objects) || path.Ext(name) != ".file" {
		return nil
	}
	o := &object{header: &tar.Header{
		Typeflag: h.Typeflag, Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid, Size: h.Size, Linkname: h.Linkname,
		ModTime: time.Unix(0, 0), PAXRecords: xattrsOf(h),
	}}
	switch h.Typeflag {
	case tar.TypeSymlink:
		o.header.Size = 0
	case tar.TypeReg:
		if err := w.keep(o); err != nil {
			return err
		}
	default:
		return nil
	}
	size := len(o.header.Linkname)
	for key, value := range o.header.PAXRecords {
		size += len(key) + len(value)
	}
	if err := errors.Join(w.remember(name, false), w.hold(size)); err != nil {
		return err
	}
	w.objects[name] = o
	return nil
}

// keep puts the bytes of an object aside.
func (w *filter) keep(o *object) (err error) {
	if o.header.Size < 0 || o.header.Size > maxUnpacked-w.bytes {
		return bad(o.header.Name, "with it the layer has more than %d bytes", int64(maxUnpacked))
	}
	if w.stash == nil {
		fd, err := unix.Open(w.Scratch, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return wrote(&os.PathError{Op: "make a file in", Path: w.Scratch, Err: err})
		}
		w.stash = os.NewFile(uintptr(fd), w.Scratch)
	}
	if w.waiting == 0 && w.end > 0 {
		if err := w.stash.Truncate(0); err != nil {
			return wrote(err)
		}
		w.end = 0
	}
	if err := w.Room(o.header.Size); err != nil {
		return err
	}
	o.at = w.end
	if err := w.copy(io.NewOffsetWriter(w.stash, o.at), w.in, o.header.Size); err != nil {
		return err
	}
	w.end += o.header.Size
	w.waiting++
	return nil
}

// linkObject writes a link to an object: the first is the file.
func (w *filter) linkObject(h *tar.Header, o *object) error {
	switch {
	case o.header.Typeflag == tar.TypeSymlink:
		to := *o.header
		o.first, to.Name = h.Name, h.Name
		return w.write(&to, nil)
	case o.first != "" && o.first != h.Name:
		h.Typeflag, h.Linkname, h.PAXRecords = tar.TypeLink, o.first, nil
		return w.write(h, nil)
	case o.first != "": // the same name twice
		return nil
	}
	o.first, o.header.Name = h.Name, h.Name
	w.waiting--
	return w.file(o.header, io.NewSectionReader(w.stash, o.at, o.header.Size))
}
