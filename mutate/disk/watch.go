package disk

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watch remembers each name that was looked at in the trees of an image, and what was
// there: a file that was read, a directory that was listed, where a link leads, and that
// there is nothing. As long as all of that is found again, whatever was made of it is
// the same, and nobody has to know beforehand what it depends on.
//
// What is in a file is told by its inode and time of change, which is cheap; FAT has
// neither, and there the bytes are read once more. A FAT volume that is read without the
// kernel is written by [Image.FillFAT] alone, which opens it anew: it is known by its tree.
type watch struct {
	seen  map[look]found
	order []look // of seen, for changed; nil if something was added since
	read  map[look][]span
	trees map[*os.File]*Tree
	fats  map[int]*Tree // by slot
}

// look is one way to look at one name.
type look struct {
	tree *Tree
	kind lookKind
	name string
}

type lookKind int

const (
	atLink    lookKind = iota // where the link leads that the name is, "" if it is none
	atFile                    // what it is, following links
	atContent                 // what is in it, following links
)

// found is what a look gives, the zero value for nothing.
type found struct {
	mode   uint32
	inode  uint64 // 0 in a tree that does not tell
	size   int64  // of a file
	change int64  // the time of it, for content
	target string // of a link
}

func newWatch() *watch {
	return &watch{
		seen: map[look]found{}, read: map[look][]span{}, trees: map[*os.File]*Tree{}, fats: map[int]*Tree{},
	}
}

// of gives the files below a directory, of which all that is looked at is remembered.
func (w *watch) of(root *os.File, timeless bool) *Tree {
	if w.trees[root] == nil {
		w.trees[root] = &Tree{files: mountedTree{root}, watch: w, timeless: timeless}
	}
	return w.trees[root]
}

func (w *watch) note(l look, f found) {
	if _, ok := w.seen[l]; !ok {
		w.seen[l], w.order = f, nil
	}
}

func (w *watch) noteLink(t *Tree, name, target string) {
	w.note(look{t, atLink, name}, found{target: target})
}

// noteFile notes what is known of a name, whose info is nil if there is none.
func (w *watch) noteFile(t *Tree, name string, fi fs.FileInfo) {
	l := look{t, atFile, name}
	w.note(l, l.found(fi))
}

// noteContent notes that a file is read, or a directory listed, that was opened as fi.
func (w *watch) noteContent(t *Tree, name string, fi fs.FileInfo) look {
	l := look{t, atContent, name}
	f := l.found(fi)
	if age := time.Since(time.Unix(0, f.change)); age.Abs() < tick {
		f.change = -1 // which will not be found again
	}
	delete(w.seen, look{t, atFile, name}) // it is part of this
	w.note(l, f)
	return l
}

// tick is longer than the clock stands still by which the kernel tells times of change:
// what has changed that lately may change once more and have the same time.
const tick = 20 * time.Millisecond

// found picks from what is known of a file what the look depends on.
func (l look) found(fi fs.FileInfo) (f found) {
	if fi == nil {
		return f
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		f = l.foundIn(unix.Stat_t{Mode: st.Mode, Ino: st.Ino, Size: st.Size, Ctim: unix.Timespec(st.Ctim)})
	}
	return f
}

func (l look) foundIn(st unix.Stat_t) found {
	f := found{mode: st.Mode, inode: st.Ino}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		f.size = st.Size
	}
	if l.kind == atContent {
		f.change = st.Ctim.Nano()
	}
	if l.tree.timeless {
		f.inode, f.change = 0, 0
	}
	return f
}

// changed says whether something is found otherwise now. fats are the FAT volumes of the
// image that are open.
func (w *watch) changed(fats map[int]*Tree) bool {
	for slot, t := range w.fats {
		if fats[slot] != t {
			return true
		}
	}
	if w.order == nil {
		w.order = slices.Collect(maps.Keys(w.seen))
		slices.SortFunc(w.order, func(a, b look) int { return strings.Compare(path.Dir(a.name), path.Dir(b.name)) })
	}
	dirs := map[*Tree]*lastDir{}
	defer func() {
		for _, d := range dirs {
			d.close()
		}
	}()
	for _, l := range w.order {
		if dirs[l.tree] == nil {
			dirs[l.tree] = &lastDir{tree: l.tree}
		}
		if dirs[l.tree].look(l) != w.seen[l] || !l.readsAgain(w.read[l]) {
			return true
		}
	}
	return false
}

// lastDir is the directory of a tree in which the last name was looked at: to look at
// the next one in it takes one system call.
type lastDir struct {
	tree *Tree
	name string
	file *os.File // nil if there is none
}

func (d *lastDir) close() {
	if d.file != nil {
		d.file.Close()
	}
}

// look looks at a name again.
func (d *lastDir) look(l look) found {
	files, ok := l.tree.files.(mountedTree)
	if !ok || !fs.ValidPath(l.name) {
		return found{}
	}
	if dir := path.Dir(l.name); d.name != dir {
		d.close()
		d.name = dir
		d.file, _ = files.open(dir, unix.O_PATH|unix.O_DIRECTORY) // what is not there has nothing in it
	}
	if d.file == nil {
		return found{}
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.file.Fd()), path.Base(l.name), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return found{}
	}
	isLink := st.Mode&unix.S_IFMT == unix.S_IFLNK
	switch {
	case l.kind == atLink && isLink:
		target, _ := files.readLink(l.name)
		return found{target: target}
	case l.kind == atLink:
		return found{}
	case isLink:
		fi, _ := files.Stat(l.name)
		return l.found(fi)
	}
	return l.foundIn(st)
}
