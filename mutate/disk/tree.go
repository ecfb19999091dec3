package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat12"
	"github.com/diskfs/go-diskfs/filesystem/fat16"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/mount"
)

// Access is how a volume is opened.
type Access bool

// The ways to open a volume. ReadOnly changes no byte of the image, not even
// to replay a journal.
const (
	ReadOnly  Access = false
	ReadWrite Access = true
)

// Tree is the files of one volume, read from outside the image: an [fs.FS] in
// which symbolic links, absolute ones too, lead nowhere but inside the volume.
type Tree struct {
	files fs.FS
	root  *os.File // nil for FAT, which is read without the kernel
}

// Open implements [fs.FS].
func (t *Tree) Open(name string) (fs.File, error) { return t.files.Open(name) }

// ReadDir implements [fs.ReadDirFS].
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(t.files, name) }

// ReadFile implements [fs.ReadFileFS].
func (t *Tree) ReadFile(name string) ([]byte, error) { return fs.ReadFile(t.files, name) }

// Stat implements [fs.StatFS]; it follows symbolic links.
func (t *Tree) Stat(name string) (fs.FileInfo, error) { return fs.Stat(t.files, name) }

// Close ends the mount. Nothing of the volume is in use afterwards, unless a
// file that was opened from it still is.
func (t *Tree) Close() error {
	if t.root == nil {
		return nil
	}
	return t.root.Close()
}

// Open mounts the volume of the image f where nobody sees it. FAT can only be
// opened [ReadOnly].
func (v Volume) Open(f *os.File, access Access) (*Tree, error) {
	if v.FS == "vfat" {
		return v.openFAT(f)
	}
	root, err := v.mount(f, access)
	if err != nil {
		return nil, fmt.Errorf("mount %s (%s): %w", v, v.FS, err)
	}
	return &Tree{mountedTree{root}, root}, nil
}

// TreeAt is the files below a directory, with what is mounted there. The
// directory stays the caller's to close.
func TreeAt(root *os.File) *Tree { return &Tree{files: mountedTree{root}} }

// mount makes a detached mount of the volume.
func (v Volume) mount(f *os.File, access Access) (*os.File, error) {
	dev, err := mount.Loop(f, mount.LoopOptions{Offset: v.Offset, Size: v.Size, ReadOnly: access == ReadOnly})
	if err != nil {
		return nil, err
	}
	defer dev.Close() // the mount keeps it
	return mount.Detached(mount.Request{Device: dev.Name(), FS: v.FS, ReadOnly: access == ReadOnly})
}

// openFAT reads FAT in user space: a third of the kernels that build images
// have no vfat. Only reading is trustworthy there.
func (v Volume) openFAT(f *os.File) (_ *Tree, err error) {
	defer recovered(&err)
	var files fs.FS
	bits, err := checkFAT(io.NewSectionReader(f, v.Offset, v.Size), v.Size)
	if err == nil {
		files, err = readFAT(bits, file.New(f, true), v)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s (vfat): %w", v, err)
	}
	return &Tree{files: fatFS{files}}, nil
}

// readFAT opens the volume by the one reader for its kind: no other is tried,
// because the volume was not checked for it.
func readFAT(bits int, b backend.Storage, v Volume) (fs.FS, error) {
	switch bits {
	case 12:
		return fat12.Read(b, v.Size, v.Offset, 512)
	case 16:
		return fat16.Read(b, v.Size, v.Offset, 512)
	}
	return fat32.Read(b, v.Size, v.Offset, 512)
}

// fatFS keeps two known faults of the library away from its callers: a panic
// on a damaged volume, and an error for reading an empty file.
type fatFS struct{ fs.FS }

func (t fatFS) Open(name string) (f fs.File, err error) {
	defer recovered(&err)
	if f, err = t.FS.Open(name); err != nil {
		return nil, err
	}
	return &fatFile{File: f, tree: t, name: name}, nil
}

// fatFile is an open file or directory of a FAT volume.
type fatFile struct {
	fs.File
	tree fatFS
	name string
	list []fs.DirEntry // what is still to be given of the directory
	read bool          // it is known what is in the directory
}

func (f *fatFile) Read(b []byte) (n int, err error) {
	defer recovered(&err)
	return f.File.Read(b)
}

func (f *fatFile) Seek(offset int64, whence int) (at int64, err error) {
	defer recovered(&err)
	s, ok := f.File.(io.Seeker)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	return s.Seek(offset, whence)
}

// ReadDir implements [fs.ReadDirFile]. The library takes a directory as a whole,
// of 65,536 entries at most.
func (f *fatFile) ReadDir(n int) (list []fs.DirEntry, err error) {
	if !f.read {
		if f.list, err = f.tree.ReadDir(f.name); err != nil {
			return nil, err
		}
		f.read = true
	}
	if n <= 0 {
		list, f.list = f.list, nil
		return list, nil
	}
	if len(f.list) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(f.list))
	list, f.list = f.list[:n], f.list[n:]
	return list, nil
}

func (t fatFS) ReadFile(name string) (b []byte, err error) {
	defer recovered(&err)
	fi, err := fs.Stat(t.FS, name)
	if err != nil {
		return nil, err
	}
	if fi.Size() == 0 {
		return nil, nil
	}
	return fs.ReadFile(t.FS, name)
}

func (t fatFS) Stat(name string) (fi fs.FileInfo, err error) {
	defer recovered(&err)
	return fs.Stat(t.FS, name)
}

func (t fatFS) ReadDir(name string) (list []fs.DirEntry, err error) {
	defer recovered(&err)
	return fs.ReadDir(t.FS, name)
}

func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("read vfat: damaged: %v", r)
	}
}

// mountedTree is the files below a mount's root.
type mountedTree struct{ root *os.File }

// Open opens a file or directory for reading.
func (m mountedTree) Open(name string) (fs.File, error) {
	return m.open(name, unix.O_RDONLY|unix.O_NONBLOCK)
}

func (m mountedTree) open(name string, flags uint64) (*os.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	for {
		fd, err := unix.Openat2(int(m.root.Fd()), name, &unix.OpenHow{
			Flags:   flags | unix.O_CLOEXEC | unix.O_NOCTTY,
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

// Overwrite replaces the bytes of an existing file and keeps everything else
// of it: owner, mode, links, and that it is immutable (chattr(1)): that is meant
// for the system's own programs.
func (t *Tree) Overwrite(name string, b []byte) error {
	m, ok := t.files.(mountedTree)
	if !ok {
		return &fs.PathError{Op: "write", Path: name, Err: errors.ErrUnsupported}
	}
	restore, err := m.makeWritable(name)
	if err != nil {
		return err
	}
	f, err := m.open(name, unix.O_WRONLY|unix.O_TRUNC)
	if err != nil {
		return errors.Join(err, restore())
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close(), restore())
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
