package step

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/record"
)

// From is what a step reads from beside the recipe: a file, or a directory and
// all below it. If Path is a symbolic link, it is what that leads to; links
// below it are links.
//
// What differs between two checkouts of one commit counts for nothing: their
// owner, umask and times, of which git keeps nothing. So the digest of a file
// covers its path, type, bytes, link target, extended attributes, which file of
// the tree it is another name of, and of its mode what a checkout decides: see
// [usualMode].
type From struct {
	Path      string
	KeepOwner bool // the numbers of owner and group count too
	KeepMode  bool // and all of the mode
}

// Source is the directory of a recipe. Nothing outside it is read, whatever
// its symbolic links say ([os.Root]).
type Source struct {
	Root *os.Root
	// Cache, if not nil, remembers sums of files that have not changed.
	Cache Cache
	// Note, if not nil, is told what the user should know of what is copied.
	Note func(text string)
	// Epoch, if not zero, is the latest time that a file gets in a layer that is
	// made now. Like all times it is no part of the key
	// (reproducible-builds.org, SOURCE_DATE_EPOCH).
	Epoch time.Time
	// want are the digests that keys were made from: a file that has changed
	// since is an error, or the layer would not be what its key says.
	want map[From]*fileList
}

// Cache knows the sums of files that have not changed. A file that it does not
// know is read.
type Cache interface {
	// Begin says that the files of the tree top are going to be asked for, and
	// end that this was all of them.
	Begin(top *os.File) (end func(), err error)
	// Sum gives what was stored of a file for which fstat(2) said the same.
	Sum(st *unix.Stat_t) (sum [32]byte, ok bool)
	// Store takes the sum of a file that was read after the time of reading.
	Store(st *unix.Stat_t, sum [32]byte, reading time.Time)
}

// ErrInputChanged says that a file beside the recipe changed during the build.
var ErrInputChanged = errors.New("changed while the image was being built")

// ErrNotAFile says that something beside the recipe cannot be copied: a socket,
// a device, a pipe.
var ErrNotAFile = errors.New("neither a file, a directory nor a symbolic link")

func (s *Source) epoch() time.Time {
	if s == nil {
		return time.Time{}
	}
	return s.Epoch
}

// open opens what a step reads, through a link if it names one. It opens nothing
// but a file or a directory: to open a device can do something, and a pipe waits
// for its other end. If the file becomes one under its eyes, it does not wait.
func (s *Source) open(path string) (*os.File, error) {
	fi, err := s.Root.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() && !fi.IsDir() {
		return nil, fmt.Errorf("read %s: %w", path, ErrNotAFile)
	}
	f, err := s.Root.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	is, err := f.Stat()
	if err == nil && !os.SameFile(fi, is) {
		err = fmt.Errorf("read %s: %w", path, ErrInputChanged)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Digest lists the files that are read from beside the recipe with their
// digests, in order.
func (s *Source) Digest(ctx context.Context, froms []From) ([]record.Input, error) {
	var inputs []record.Input
	for _, from := range froms {
		more, err := s.digest(ctx, from)
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, more...)
	}
	return inputs, nil
}

func (s *Source) digest(ctx context.Context, from From) ([]record.Input, error) {
	top, err := s.open(from.Path)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	end := func() {}
	if s.Cache != nil {
		if end, err = s.Cache.Begin(top); err != nil {
			return nil, err
		}
	}
	list := newFileList(from)
	err = s.walk(ctx, from, top, func(f *inputFile) error {
		d, err := f.digest(ctx)
		list.add(f.path, d)
		return err
	})
	if err != nil {
		return nil, err
	}
	if s.want == nil {
		s.want = map[From]*fileList{}
	}
	s.want[from] = list
	end()
	return list.inputs(), nil
}

// send writes the files to t, under the names that name gives them, and checks
// on the way that they are what the key was made from.
func (s *Source) send(
	ctx context.Context, from From, t *tar.Writer, name func(*inputFile) string, change func(*tar.Header),
) error {
	top, err := s.open(from.Path)
	if err != nil {
		return err
	}
	defer top.Close()
	want, list := s.want[from], newFileList(from)
	sent := map[string]string{} // by path, the names in the image of files that have several
	err = s.walk(ctx, from, top, func(f *inputFile) error {
		h := f.header(s.Epoch)
		h.Name = name(f)
		if f.first != "" {
			h.Linkname = sent[f.first]
		} else if f.isFile() && f.st.Nlink > 1 {
			sent[f.path] = h.Name
		}
		change(h)
		d, err := f.send(ctx, t, h)
		list.add(f.path, d)
		if err == nil && want != nil {
			err = want.checkLast(list)
		}
		return err
	})
	if err != nil || want == nil {
		return err
	}
	return want.check(list)
}

// walk calls visit for all that from names, which is open as top: directories
// before what is in them, sorted.
func (s *Source) walk(ctx context.Context, from From, top *os.File, visit func(*inputFile) error) error {
	w := walker{ctx: ctx, source: s, from: from, visit: visit, names: map[fileID]string{}}
	f := &inputFile{walker: &w, path: from.Path, file: top}
	if err := unix.Fstat(int(top.Fd()), &f.st); err != nil {
		return &os.PathError{Op: "stat", Path: from.Path, Err: err}
	}
	return w.file(f)
}

// maxPath is PATH_MAX of Linux: nothing in the image could open a longer path.
// It also bounds how deep a tree is that the walk goes down.
const maxPath = 4096

// fileID is a file whatever its names.
type fileID struct{ dev, ino uint64 }

type walker struct {
	ctx    context.Context
	source *Source
	from   From
	visit  func(*inputFile) error
	buf    []byte
	names  map[fileID]string // the first name of each file that has several
}

func (w *walker) file(f *inputFile) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	if len(f.path) >= maxPath {
		return fmt.Errorf("read %.80s...: %w", f.path, unix.ENAMETOOLONG)
	}
	switch f.st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return w.directory(f)
	case unix.S_IFREG:
		if f.st.Nlink > 1 {
			id := fileID{uint64(f.st.Dev), f.st.Ino}
			if f.first = w.names[id]; f.first == "" {
				w.names[id] = f.path
			}
		}
		defer f.close()
	case unix.S_IFLNK:
		if err := f.readLink(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("read %s: %w", f.path, ErrNotAFile)
	}
	return w.visit(f)
}

func (w *walker) directory(f *inputFile) error {
	if err := f.open(); err != nil {
		return err
	}
	defer f.close()
	if err := w.visit(f); err != nil {
		return err
	}
	names, err := f.file.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	dir := int(f.file.Fd())
	for _, name := range names {
		in := &inputFile{walker: w, path: path.Join(f.path, name), name: name, dir: dir}
		if err := unix.Fstatat(dir, name, &in.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "stat", Path: in.path, Err: err}
		}
		if err := w.file(in); err != nil {
			return err
		}
	}
	return nil
}

// relative is the path of a file below the one that the step names; empty for
// that one.
func (f *inputFile) relative() string {
	switch from := f.walker.from.Path; {
	case f.path == from:
		return ""
	case from == ".":
		return f.path
	default:
		return strings.TrimPrefix(f.path, from+"/")
	}
}
