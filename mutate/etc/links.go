package etc

import (
	"errors"
	"io/fs"
	"path"
	"strings"
	"syscall"
)

const (
	maxSteps  = 2 << 20  // look-ups and dependencies followed
	callSteps = 16       // that a system call counts as
	maxBytes  = 64 << 20 // text read
	maxHops   = 40       // links in one path, as the kernel has it
)

// files reads a tree within bounds, and follows its links by itself: an absolute
// one begins at the tree's root, and not every [fs.FS] knows links.
type files struct {
	tree   fs.FS
	target map[string]string // of each name that was looked at; "" for what is no link
	steps  int               // that are left
	bytes  int64             // that are left
}

func newFiles(tree fs.FS) *files {
	return &files{tree: tree, target: map[string]string{}, steps: maxSteps, bytes: maxBytes}
}

// step counts something that a hostile tree could have without an end.
func (f *files) step() error { return f.spend(1) }

func (f *files) spend(steps int) error {
	if f.steps -= steps; f.steps < 0 {
		return ErrTooMuch
	}
	return nil
}

func (f *files) readLink(name string) string {
	target, ok := f.target[name]
	if !ok {
		f.steps -= callSteps
		target, _ = fs.ReadLink(f.tree, name)
		f.target[name] = target
	}
	return target
}

// follow gives the name that a path has without links. What is missing of it
// stays as it is written.
func (f *files) follow(name string) (string, error) { return f.resolve(".", name, true) }

// resolve is follow for a path that may begin in a directory, and whose last
// link may be wanted itself.
func (f *files) resolve(dir, name string, last bool) (string, error) {
	at, rest, hops := dir, name, 0
	for rest != "" {
		if err := f.step(); err != nil {
			return "", err
		}
		if path.IsAbs(rest) {
			at, rest = ".", strings.TrimLeft(rest, "/")
			continue
		}
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		rest = strings.TrimLeft(rest, "/")
		at = path.Join(at, part)
		if strings.HasPrefix(at, "..") && (at == ".." || at[2] == '/') {
			at = "."
		}
		if rest == "" && !last || part == ".." || part == "." {
			continue
		}
		if target := f.readLink(at); target != "" {
			if hops++; hops > maxHops || len(target)+len(rest) > syscall.PathMax {
				return "", &fs.PathError{Op: "follow", Path: name, Err: syscall.ELOOP}
			}
			at, rest = path.Dir(at), strings.TrimRight(target+"/"+rest, "/")
			if rest == "" { // a link to "/"
				at = "."
			}
		}
	}
	return at, nil
}

// read gives the text of a regular file, following links. Below /dev and what else is
// fresh at each start, the tree has no file that the system would find: a link to
// /dev/null masks, whatever is there.
func (f *files) read(name string, most int64) (string, error) {
	name, err := f.follow(name)
	if err != nil {
		return "", err
	}
	if isFresh("/" + name) {
		return "", &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	f.steps -= callSteps
	text, err := readText(f.tree, name, most)
	if f.bytes -= int64(len(text)); err == nil && f.bytes < 0 {
		err = &fs.PathError{Op: "read", Path: name, Err: ErrTooMuch}
	}
	return text, err
}

// stat is [fs.Stat] of a path in which links are followed.
func (f *files) stat(name string) (fs.FileInfo, error) {
	name, err := f.follow(name)
	if err != nil {
		return nil, err
	}
	f.steps -= callSteps
	return fs.Stat(f.tree, name)
}

// list gives the entries of a directory with their kinds. What is no directory
// has none.
func (f *files) list(dir string) ([]fs.DirEntry, error) {
	dir, err := f.follow(dir)
	if err != nil {
		return nil, skipAbsent(err)
	}
	entries, err := readEntries(f.tree, dir, maxEntries)
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink == 0 {
			f.target[path.Join(dir, e.Name())] = ""
		}
	}
	if err == nil {
		err = f.spend(len(entries))
	}
	return entries, skipAbsent(err)
}

const maxEntries = 65536 // of one directory

// skipAbsent drops the errors of a file that is not there, or not of the right
// kind: to systemd it is none.
func skipAbsent(err error) error {
	for _, absent := range absences {
		if errors.Is(err, absent) {
			return nil
		}
	}
	return err
}

var absences = []error{
	fs.ErrNotExist, syscall.ENOTDIR, syscall.EISDIR, syscall.ELOOP, syscall.ENAMETOOLONG, errors.ErrUnsupported, errNotRegular,
}
