package disk

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
)

// Access is how a volume is opened.
type Access bool

// The ways to open a volume. ReadOnly changes no byte of the image, not even
// to replay a journal.
const (
	ReadOnly  Access = false
	ReadWrite Access = true
)

// Tree is files of the image, read from outside it: an [fs.FS] in which symbolic
// links, absolute ones too, lead nowhere but inside the tree.
type Tree struct {
	files fs.FS  // a mountedTree, or for FAT, which is read without the kernel, a fatFS
	watch *watch // remembers what is looked at, if it is there: the files are a mountedTree then
	// timeless says that times and inodes do not tell whether a file has changed, as on FAT.
	timeless bool
}

// Open implements [fs.FS].
func (t *Tree) Open(name string) (fs.File, error) {
	if t.watch != nil {
		return t.openWatched(name)
	}
	return t.files.Open(name)
}

// ReadDir implements [fs.ReadDirFS].
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	if t.watch != nil {
		return fs.ReadDir(opening{t}, name)
	}
	return fs.ReadDir(t.files, name)
}

// ReadFile implements [fs.ReadFileFS].
func (t *Tree) ReadFile(name string) ([]byte, error) {
	if t.watch != nil {
		return fs.ReadFile(opening{t}, name)
	}
	return fs.ReadFile(t.files, name)
}

// opening is a tree that can do nothing but open files.
type opening struct{ tree *Tree }

// Open implements [fs.FS].
func (o opening) Open(name string) (fs.File, error) { return o.tree.Open(name) }

// Stat implements [fs.StatFS]; it follows symbolic links.
func (t *Tree) Stat(name string) (fs.FileInfo, error) {
	fi, err := fs.Stat(t.files, name)
	if t.watch != nil {
		t.watch.noteFile(t, name, fi)
	}
	return fi, err
}

// Lstat implements [fs.ReadLinkFS]. FAT knows no links.
func (t *Tree) Lstat(name string) (fs.FileInfo, error) {
	m, ok := t.files.(mountedTree)
	if !ok {
		return t.Stat(name)
	}
	fi, err := m.lstat(name)
	switch {
	case t.watch == nil:
	case err == nil && fi.Mode()&fs.ModeSymlink != 0:
		target, _ := m.readLink(name)
		t.watch.noteLink(t, name, target)
	default:
		t.watch.noteFile(t, name, fi)
	}
	return fi, err
}

// ReadLink implements [fs.ReadLinkFS]. An absolute target begins at the tree's root.
func (t *Tree) ReadLink(name string) (target string, err error) {
	m, ok := t.files.(mountedTree)
	if !ok {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	target, err = m.readLink(name)
	if t.watch != nil {
		t.watch.noteLink(t, name, target)
	}
	return target, err
}

// treeOf is the files below a mount's root, with what is mounted there.
func treeOf(root *os.File) *Tree { return &Tree{files: mountedTree{root}} }

// TreeAt is the files below a directory, with what is mounted there. The directory
// stays the caller's to close.
func TreeAt(root *os.File) *Tree { return treeOf(root) }

// mountedTree is the files below a mount's root.
type mountedTree struct{ root *os.File }

// Open opens a file or directory for reading.
func (m mountedTree) Open(name string) (fs.File, error) {
	return m.open(name, unix.O_RDONLY|unix.O_NONBLOCK)
}

// open opens a file so that it never becomes the terminal of the process; with
// O_PATH it is not opened at all, and the kernel takes no flag that would say so.
func (m mountedTree) open(name string, flags uint64) (*os.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if flags&unix.O_PATH == 0 {
		flags |= unix.O_NOCTTY
	}
	for {
		fd, err := unix.Openat2(int(m.root.Fd()), name, &unix.OpenHow{
			Flags:   flags | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err == unix.EAGAIN || err == unix.EINTR { // a rename raced with the look-up
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// Stat implements [fs.StatFS]. The file is not opened, which of a device or a socket
// would fail.
func (m mountedTree) Stat(name string) (fs.FileInfo, error) { return m.stat(name, unix.O_PATH) }

func (m mountedTree) lstat(name string) (fs.FileInfo, error) {
	return m.stat(name, unix.O_PATH|unix.O_NOFOLLOW)
}

func (m mountedTree) stat(name string, flags uint64) (fs.FileInfo, error) {
	f, err := m.open(name, flags)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

func (m mountedTree) readLink(name string) (string, error) {
	f, err := m.open(name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "", err
	}
	defer f.Close()
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", target)
	if err != nil { // EINVAL, or ENOENT of old kernels, for what is no link
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return string(target[:n]), nil
}

// Overwrite replaces bytes of an existing file from an offset on and keeps
// everything else of it: the bytes before and behind, owner, mode, links, and
// that it is immutable (chattr(1)): that is meant for the system's own programs.
// On FAT the file has to have those bytes already.
func (t *Tree) Overwrite(name string, b []byte, offset int64) error {
	var err error
	switch files := t.files.(type) {
	case mountedTree:
		err = files.overwrite(name, b, offset)
	case fatFS:
		err = files.overwrite(name, b, offset)
	}
	return err
}

// Replace gives an existing file another content and keeps everything else of it, as
// Overwrite does. On FAT the content has to have the length that it has.
func (t *Tree) Replace(name string, b []byte) error {
	if m, ok := t.files.(mountedTree); ok {
		return m.change(name, func(f *os.File) error {
			_, err := f.WriteAt(b, 0)
			return errors.Join(err, f.Truncate(int64(len(b))))
		})
	}
	fi, err := t.Stat(name)
	if err != nil {
		return err
	}
	if fi.Size() != int64(len(b)) {
		return fault.New(fault.Image, "make the new text as long as the old, or name the volume otherwise there",
			"write %s: a file of a FAT volume cannot become of %d bytes, it has %d", name, len(b), fi.Size())
	}
	return t.Overwrite(name, b, 0)
}

func (m mountedTree) overwrite(name string, b []byte, offset int64) error {
	return m.change(name, func(f *os.File) error {
		_, err := f.WriteAt(b, offset)
		return err
	})
}

// change opens a file for writing, also one that is sealed.
func (m mountedTree) change(name string, write func(*os.File) error) error {
	restore, err := m.makeWritable(name)
	if err != nil {
		return err
	}
	f, err := m.open(name, unix.O_WRONLY)
	if err != nil {
		return errors.Join(err, restore())
	}
	return errors.Join(write(f), f.Sync(), f.Close(), restore())
}

// makeWritable takes the flags off a file that keep root from writing it.
func (m mountedTree) makeWritable(name string) (restore func() error, err error) {
	const sealed = unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND // equal to FS_IMMUTABLE_FL and FS_APPEND_FL
	f, err := m.open(name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&sealed == 0 { // a filesystem without flags has no sealed files
		return func() error { return nil }, f.Close()
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags&^sealed)); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "chattr -ia", Path: name, Err: err}, f.Close())
	}
	return func() error {
		err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags))
		if err != nil {
			err = &fs.PathError{Op: "chattr +ia", Path: name, Err: err}
		}
		return errors.Join(err, f.Close())
	}, nil
}
