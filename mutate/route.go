package mutate

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
)

// putSorted is Put for an image with places that the guest cannot see: what is for
// those goes to their volumes, once the guest has the rest.
func (s *scopedGuest) putSorted(ctx context.Context, write func(*tar.Writer) error) (err error) {
	r := &router{sealed: s.sealed, scratch: s.scratch, staged: map[int]*staging{}}
	defer func() { err = errors.Join(err, r.remove()) }()
	stream, in := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t := tar.NewWriter(in)
		err := write(t)
		if err == nil {
			err = t.Close()
		}
		in.CloseWithError(err)
	}()
	err = s.Guest.Put(ctx, func(t *tar.Writer) error { return r.route(tar.NewReader(stream), t) })
	stream.Close()
	<-ended
	if err == nil {
		err = r.fill(ctx)
	}
	if text := r.lost(); err == nil && text != "" && s.note != nil {
		s.note(text)
	}
	return err
}

// router parts a tar stream: what is for FAT volumes is staged, in a directory for
// each.
type router struct {
	*sealed
	scratch string
	staged  map[int]*staging // by slot
	modes   []string         // files whose permissions are lost

	dir string // the last directory that was asked for, and what it is
	at  disk.SealedPath
	in  bool
}

// staging is the files that are for one volume.
type staging struct {
	volume disk.Volume
	dir    string
	left   int64 // what the volume could hold at most, in bytes
}

// route sends on what is the guest's.
func (r *router) route(from *tar.Reader, to *tar.Writer) error {
	for {
		h, err := from.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		p, ok := r.place(h)
		switch {
		case ok:
			if err := r.stage(p, h, from); err != nil {
				return fmt.Errorf("write %s: %w", h.Name, err)
			}
			continue
		case h.Typeflag == tar.TypeLink:
			if _, ok := r.find(h.Linkname, false); ok {
				return fault.New(fault.Recipe, "", "write %s: %s, of which it is another name, is on a FAT volume, which has no links",
					h.Name, h.Linkname)
			}
		}
		if err := to.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(to, from); err != nil {
			return err
		}
	}
}

// place tells where in a volume an entry of the stream is to be.
func (r *router) place(h *tar.Header) (disk.SealedPath, bool) {
	if h.Typeflag == tar.TypeDir {
		return r.find(h.Name, true)
	}
	if dir := path.Dir(h.Name); dir != r.dir {
		r.dir = dir
		r.at, r.in = r.find(dir, true)
	}
	p := r.at
	p.Name = path.Join(p.Name, path.Base(h.Name))
	return p, r.in
}

// stage keeps an entry for its volume.
func (r *router) stage(p disk.SealedPath, h *tar.Header, content io.Reader) error {
	if err := fitsFAT(h); err != nil {
		return err
	}
	s := r.staged[p.Slot]
	if s == nil {
		s = &staging{volume: p.Volume, left: p.Size}
		var err error
		if s.dir, err = os.MkdirTemp(r.scratch, "fat-"); err != nil {
			return err
		}
		r.staged[p.Slot] = s
	}
	usual := []int64{0o755}
	if h.Typeflag == tar.TypeReg {
		usual = append(usual, 0o644)
	}
	if !slices.Contains(usual, h.Mode&0o7777) {
		r.modes = append(r.modes, fmt.Sprintf("%s (%04o)", h.Name, h.Mode&0o7777))
	}
	name := filepath.Join(s.dir, p.Name)
	if h.Typeflag == tar.TypeDir {
		return os.MkdirAll(name, 0o700)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return s.write(name, h, content)
}

// fitsFAT says what of a file FAT cannot have.
func fitsFAT(h *tar.Header) error {
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
		return fault.New(fault.Recipe, "", "it is on a FAT volume, which has files and directories only, and no links")
	}
	for name := range agent.Xattrs(h) {
		return fault.New(fault.Recipe, "", "it is on a FAT volume, which keeps no attributes, and has %s", name)
	}
	owner := agent.Owner(h)
	for _, o := range strings.SplitN(owner, ":", 2) {
		if o != "root" && o != "0" {
			return fault.New(fault.Recipe, "leave the owner out: all files there belong to whom fstab says, most often root",
				"it is on a FAT volume, which keeps no owner, and is to belong to %s", owner)
		}
	}
	return nil
}

// write writes a regular file, with the holes that the stream says.
func (s *staging) write(name string, h *tar.Header, content io.Reader) (err error) {
	size, data, sparse, err := agent.Sparse(h)
	if err != nil {
		return err
	}
	if !sparse {
		size, data = h.Size, []agent.Range{{Offset: 0, Length: h.Size}}
	}
	if s.left -= size; s.left < 0 {
		return fmt.Errorf("%s has no room for it: %w", s.volume, syscall.ENOSPC)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, d := range data {
		if _, err := io.Copy(io.NewOffsetWriter(f, d.Offset), io.LimitReader(content, d.Length)); err != nil {
			return err
		}
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	t, ok, err := agent.Time(h)
	if err != nil || !ok {
		return err
	}
	return os.Chtimes(name, t, t)
}

// fill copies what is staged into the volumes.
func (r *router) fill(ctx context.Context) error {
	for _, s := range r.staged {
		if err := r.image.FillFAT(ctx, s.volume, s.dir); err != nil {
			return err
		}
	}
	return nil
}

// remove removes what is staged.
func (r *router) remove() error {
	var errs []error
	for _, s := range r.staged {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// lost says which permissions are.
func (r *router) lost() string {
	if len(r.modes) == 0 {
		return ""
	}
	what := r.modes[0]
	if more := len(r.modes) - 1; more > 0 {
		what = fmt.Sprintf("%s and %d more", what, more)
	}
	return what + ": a FAT volume keeps no permissions, all files in it have those of its mount"
}
