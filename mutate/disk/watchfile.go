package disk

import (
	"errors"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// watchedFile is an open file of a tree that is watched.
type watchedFile struct {
	fs.File
	tree *Tree
	look look
	info fs.FileInfo // as it was opened
	at   int64       // where it is read next
	sums bool        // are made of what is read
}

// span is a part of a file that was read, or of a directory, and a sum of it.
type span struct {
	ofDir      bool
	at, length int64 // bytes; of a directory, how many entries were asked for
	sum        uint64
}

var spanSeed = maphash.MakeSeed()

func (t *Tree) openWatched(name string) (fs.File, error) {
	f, err := t.files.Open(name)
	if err != nil {
		t.watch.noteFile(t, name, nil)
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	t.watch.noteFile(t, name, fi)
	return &watchedFile{File: f, tree: t, look: look{name: name}, info: fi}, nil
}

// note notes that it is more than opened.
func (f *watchedFile) note() {
	if f.look.tree != nil {
		return
	}
	f.look = f.tree.watch.noteContent(f.tree, f.look.name, f.info)
	// A directory is listed from its start: once is enough.
	f.sums = f.tree.timeless && (!f.info.IsDir() || f.tree.watch.read[f.look] == nil)
}

func (f *watchedFile) noteSpan(s span) {
	if f.sums {
		f.tree.watch.read[f.look] = append(f.tree.watch.read[f.look], s)
	}
}

// Read implements [fs.File].
func (f *watchedFile) Read(b []byte) (int, error) {
	f.note()
	n, err := f.File.Read(b)
	f.noteSpan(span{at: f.at, length: int64(n), sum: maphash.Bytes(spanSeed, b[:n])})
	f.at += int64(n)
	return n, err
}

// Seek implements [io.Seeker].
func (f *watchedFile) Seek(offset int64, whence int) (at int64, err error) {
	s, ok := f.File.(io.Seeker)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	f.at, err = s.Seek(offset, whence)
	return f.at, err
}

// ReadDir implements [fs.ReadDirFile].
func (f *watchedFile) ReadDir(n int) ([]fs.DirEntry, error) {
	f.note()
	d, ok := f.File.(fs.ReadDirFile)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	list, err := d.ReadDir(n)
	f.noteSpan(span{ofDir: true, length: int64(n), sum: sumOf(list)})
	return list, err
}

func sumOf(list []fs.DirEntry) uint64 {
	var h maphash.Hash
	h.SetSeed(spanSeed)
	for _, e := range list {
		h.WriteString(e.Type().String() + e.Name() + "/")
	}
	return h.Sum64()
}

// readsAgain says whether those parts of what the name is hold what they did.
func (l look) readsAgain(parts []span) bool {
	files, ok := l.tree.files.(mountedTree)
	if !ok || len(parts) == 0 {
		return true
	}
	f, err := files.open(l.name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(parts, func(p span) bool {
		sum, err := p.again(f)
		return err != nil && err != io.EOF || sum != p.sum
	})
}

// again gives the sum of a part as it is now.
func (p span) again(f *os.File) (uint64, error) {
	if p.ofDir {
		list, err := f.ReadDir(int(p.length))
		return sumOf(list), err
	}
	b := make([]byte, p.length)
	n, err := f.ReadAt(b, p.at)
	return maphash.Bytes(spanSeed, b[:n]), err
}
