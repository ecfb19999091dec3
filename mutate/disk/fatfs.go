package disk

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat12"

	"github.com/imgmut/imgmut/mutate/fault"
)

// openFAT reads FAT in user space: a third of the kernels that build images
// have no vfat. The library's writing is not trustworthy and is not used.
func (v Volume) openFAT(f *os.File, access Access) (_ *Tree, err error) {
	defer recovered(&err)
	found, err := checkFAT(io.NewSectionReader(f, v.Offset, v.Size), v.Size)
	if err != nil {
		return nil, fmt.Errorf("read %s (vfat): %w", v, err)
	}
	// The library's own way to open a volume takes some sorts for others: one with
	// a single FAT, or whose root directory is not at cluster 2.
	t := fatFS{FS: fat12.NewFileSystem(withoutLabels{file.New(f, true)}, nil, fatTable{found}, uint32(found.data), int(found.cluster),
		v.Size, v.Offset, found.rootAt, int(found.entries), 0, 0), found: found, image: f, volume: v}
	if _, err := t.ReadDir("."); err != nil {
		return nil, fmt.Errorf("read %s (vfat): %w", v, err)
	}
	t.writable = access == ReadWrite
	return &Tree{files: t}, nil
}

// withoutLabels hides the label of a volume, which is an entry of a directory without a
// file, from the library. That reads nothing but directories here, and would take a label
// for the file of the same name, and have it empty.
type withoutLabels struct{ backend.Storage }

// ReadAt implements [io.ReaderAt].
func (l withoutLabels) ReadAt(b []byte, offset int64) (int, error) {
	n, err := l.Storage.ReadAt(b, offset)
	for e := b[:n]; len(e) >= 32 && e[0] != last; e = e[32:] {
		if e[11]&isLabel != 0 && e[11] != longName {
			e[0] = deleted
		}
	}
	return n, err
}

// fatTable shows the library what follows each cluster. It asks for no more: all
// that it would need for writing is missing.
type fatTable struct{ *fatVolume }

func (t fatTable) ClusterValue(c uint32) uint32 { return t.next(c) }
func (t fatTable) MaxCluster() uint32           { return t.clusters - 1 }
func (t fatTable) RootDirCluster() uint32       { return t.root }
func (t fatTable) IsEOC(next uint32) bool       { return next >= t.EOCMarker()&^7 }
func (t fatTable) EOCMarker() uint32 { // asked for at each cluster
	switch t.bits {
	case 12:
		return 0xfff
	case 16:
		return 0xffff
	}
	return 0x0fffffff
}
func (t fatTable) UnusedMarker() uint32      { return 0 }
func (t fatTable) FATID() uint32             { return t.next(0) }
func (t fatTable) Size() uint32              { return uint32(len(t.fat)) }
func (t fatTable) Bytes() []byte             { panic("a FAT is only read") }
func (t fatTable) FromBytes([]byte)          { panic("a FAT is only read") }
func (t fatTable) SetCluster(uint32, uint32) { panic("a FAT is only read") }

// fatFS keeps three known faults of the library away from its callers: a panic
// on a damaged volume, an error for reading an empty file, and directories whose
// mode is that of a file.
type fatFS struct {
	fs.FS
	found    *fatVolume
	image    *os.File
	volume   Volume // of the image
	writable bool
}

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
	// content is where the bytes of a file are: the library goes through all of its
	// clusters anew for each piece that is read.
	content *io.SectionReader
}

func (f *fatFile) Stat() (fi fs.FileInfo, err error) {
	defer recovered(&err)
	if fi, err = f.File.Stat(); err != nil {
		return nil, err
	}
	return fatInfo{fi}, nil
}

func (f *fatFile) Read(b []byte) (n int, err error) {
	c, err := f.bytes()
	if err != nil {
		return 0, err
	}
	return c.Read(b)
}

func (f *fatFile) Seek(offset int64, whence int) (at int64, err error) {
	c, err := f.bytes()
	if err != nil {
		return 0, err
	}
	return c.Seek(offset, whence)
}

// bytes finds the content of a file, once.
func (f *fatFile) bytes() (c *io.SectionReader, err error) {
	defer recovered(&err)
	if f.content != nil {
		return f.content, nil
	}
	fi, err := f.File.Stat()
	if err != nil {
		return nil, err
	}
	ranges, err := f.tree.rangesOf(f.File, f.name, fi.Size())
	if err != nil {
		return nil, err
	}
	f.content = io.NewSectionReader(fatRanges{f.tree, ranges}, 0, fi.Size())
	return f.content, nil
}

// fatRanges are the places in a volume where the bytes of a file are, one after the other.
type fatRanges struct {
	fatFS
	ranges []fat12.DiskRange
}

// ReadAt implements [io.ReaderAt].
func (r fatRanges) ReadAt(b []byte, offset int64) (read int, err error) {
	skip := uint64(offset)
	for _, part := range r.ranges {
		if skip >= part.Length {
			skip -= part.Length
			continue
		}
		n := min(uint64(len(b)-read), part.Length-skip)
		m, err := r.image.ReadAt(b[read:read+int(n)], r.volume.Offset+int64(part.Offset+skip))
		if read += m; err != nil || read == len(b) {
			return read, err
		}
		skip = 0
	}
	return read, io.EOF
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

func (t fatFS) ReadFile(name string) ([]byte, error) {
	f, err := t.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

func (t fatFS) Stat(name string) (fi fs.FileInfo, err error) {
	defer recovered(&err)
	if fi, err = fs.Stat(t.FS, name); err != nil {
		return nil, err
	}
	return fatInfo{fi}, nil
}

// fatInfo is what is known of a file.
type fatInfo struct{ fs.FileInfo }

func (i fatInfo) Mode() fs.FileMode {
	if i.IsDir() {
		return fs.ModeDir | 0o755
	}
	return 0o644
}

func (t fatFS) ReadDir(name string) (list []fs.DirEntry, err error) {
	defer recovered(&err)
	return fs.ReadDir(t.FS, name)
}

// overwrite puts b where the content of a file is. The FAT and the directories
// stay as they are, so that no fault in them becomes worse.
func (t fatFS) overwrite(name string, b []byte, offset int64) (err error) {
	defer recovered(&err)
	if !t.writable {
		return &fs.PathError{Op: "write", Path: name, Err: fs.ErrPermission}
	}
	skip := uint64(offset)
	ranges, err := t.ranges(name, offset+int64(len(b)))
	for _, r := range ranges {
		before := min(skip, r.Length)
		skip -= before
		r.Offset, r.Length = r.Offset+before, r.Length-before
		n := min(uint64(len(b)), r.Length)
		if _, err := t.image.WriteAt(b[:n], t.volume.Offset+int64(r.Offset)); err != nil {
			return err
		}
		b = b[n:]
	}
	return err
}

// ranges is where in the volume the content of a file is, which has to be of
// that size at least.
func (t fatFS) ranges(name string, size int64) ([]fat12.DiskRange, error) {
	f, err := t.FS.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return t.rangesOf(f, name, size)
}

// rangesOf is ranges of a file that is open. Of two files of one name it is those of
// neither: firmware and kernels take the first, the library the last.
func (t fatFS) rangesOf(f fs.File, name string, size int64) ([]fat12.DiskRange, error) {
	list, err := t.ReadDir(path.Dir(name))
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(e fs.DirEntry) bool { return !strings.EqualFold(e.Name(), path.Base(name)) })
	if len(list) > 1 {
		return nil, fault.New(fault.Image, "mend the volume with fsck.vfat in a copy of the image",
			"find the bytes of %s: %d files have that name", name, len(list))
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	file, ok := f.(*fat12.File) // which all three readers give
	if !ok || fi.IsDir() || fi.Size() < size {
		return nil, fmt.Errorf("find the bytes of %s: it has no %d, but %d", name, size, fi.Size())
	}
	if size == 0 {
		return nil, nil // an empty file has no cluster
	}
	ranges, err := file.GetDiskRanges()
	if err != nil {
		return nil, err
	}
	var room uint64
	for _, r := range ranges {
		if room += r.Length; r.Offset+r.Length > uint64(t.volume.Size) {
			return nil, fmt.Errorf("find the bytes of %s: its clusters lie outside the volume", name)
		}
	}
	if room < uint64(size) {
		return nil, fmt.Errorf("find the bytes of %s: its clusters have no room for %d", name, size)
	}
	return ranges, nil
}

func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("read vfat: damaged: %v", r)
	}
}
