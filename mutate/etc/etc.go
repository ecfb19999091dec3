// Package etc reads small text files of an image, such as fstab(5) and
// os-release(5), and the directories that hold them. A stranger wrote them: a
// file that is too large for a text counts as missing, a directory is never read
// further than its caller looks, and a line that cannot be read is passed over.
//
// [Mounts] goes further: it reads what systemd reads at a start of the system, and
// says what would be mounted then. It is systemd's way in small. What fstab
// says becomes units as by systemd-fstab-generator (generate.go); units are found in the
// unit path, by their names, aliases and drop-ins (unitpath.go, load.go); of
// each, only what has to do with mounts is kept (unit.go); and what default.target
// pulls in starts (start.go). Nothing that a unit would run is run. Tests ask systemd
// itself whether the same mounts start.
package etc

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"
)

// MaxText is the largest text file that is read, in bytes.
const MaxText = 8 << 20

// Read reads a text file, following links. It gives "" for a file that is
// missing, not regular, or larger than [MaxText].
func Read(t fs.FS, name string) string { return ReadUpTo(t, name, MaxText) }

// ReadUpTo is [Read] for files that are larger than usual with that many bytes.
func ReadUpTo(t fs.FS, name string, most int64) string {
	text, err := readText(t, name, most)
	if err != nil {
		return ""
	}
	return text
}

var errNotRegular = errors.New("not a regular file")

// limit is the error for more of something than is read. It is about the image.
type limit string

func (l limit) Error() string { return string(l) }

// Fault is the class of the error (package fault).
func (l limit) Fault() string { return "image" }

// The limits that an error may be about.
const (
	errTooLarge = limit("the file is larger than a text of its kind")
	// ErrTooMany is the error for a directory with more entries than are looked at.
	ErrTooMany = limit("the directory has too many entries")
	// ErrTooMuch is the error for a tree in which more is to be looked at than a
	// system that somebody uses can have.
	ErrTooMuch = limit("more files, links, mounts or dependencies than are looked at")
)

// readText is ReadUpTo for those who have to know why there is no text.
func readText(t fs.FS, name string, most int64) (string, error) {
	// What is no file is not opened: the kernel refuses a device of a mount without
	// devices, and a socket, and a pipe may make its reader wait.
	fi, err := fs.Stat(t, name)
	if err != nil {
		return "", err
	}
	if !fi.Mode().IsRegular() {
		return "", &fs.PathError{Op: "read", Path: name, Err: errNotRegular}
	}
	f, err := t.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if fi.Size() > most {
		return "", &fs.PathError{Op: "read", Path: name, Err: errTooLarge}
	}
	// What a filesystem says of a size need not be what it gives.
	var b bytes.Buffer
	b.Grow(int(fi.Size()) + bytes.MinRead)
	_, err = b.ReadFrom(io.LimitReader(f, most+1))
	if err == nil && int64(b.Len()) > most {
		err = &fs.PathError{Op: "read", Path: name, Err: errTooLarge}
	}
	return b.String(), err
}

// ReadDir lists the names in a directory, sorted. It is [ErrTooMany] if there are
// more than most: those are not read.
func ReadDir(t fs.FS, dir string, most int) ([]string, error) {
	entries, err := readEntries(t, dir, most)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	slices.Sort(names)
	return names, nil
}

// readEntries is ReadDir with what kind each entry is, and in no order.
func readEntries(t fs.FS, dir string, most int) ([]fs.DirEntry, error) {
	f, err := openDir(t, dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readOpenDir(f, dir, most)
}

// openDir opens a directory. The error for what is none, such as a device that must not
// be opened, is that it is none.
func openDir(t fs.FS, dir string) (fs.File, error) {
	f, err := t.Open(dir)
	if err == nil {
		return f, nil
	}
	if fi, statErr := fs.Stat(t, dir); statErr == nil && !fi.IsDir() {
		err = &fs.PathError{Op: "readdir", Path: dir, Err: syscall.ENOTDIR}
	}
	return nil, err
}

func readOpenDir(f fs.File, dir string, most int) ([]fs.DirEntry, error) {
	d, ok := f.(fs.ReadDirFile)
	if !ok {
		return nil, &fs.PathError{Op: "readdir", Path: dir, Err: errors.ErrUnsupported}
	}
	var all []fs.DirEntry
	for {
		entries, err := d.ReadDir(most + 1 - len(all))
		all = append(all, entries...)
		switch {
		case len(all) > most:
			return nil, &fs.PathError{Op: "readdir", Path: dir, Err: ErrTooMany}
		case err == io.EOF:
			return all, nil
		case err != nil:
			return nil, err
		}
	}
}

// Exists says whether there is a file of that name, following links.
func Exists(t fs.FS, name string) bool {
	_, err := fs.Stat(t, name)
	return err == nil
}

// ParseOSRelease reads the assignments of an os-release file (os-release(5)).
func ParseOSRelease(text string) map[string]string {
	vars := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") {
			vars[key] = strings.Trim(value, `"'`)
		}
	}
	return vars
}
