// Package etc reads small text files of an image, such as fstab(5) and
// os-release(5), and the directories that hold them. A stranger wrote them: a
// file that is too large for a text counts as missing, a directory is never read
// further than its caller looks, and a line that cannot be read is passed over.
package etc

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// MaxText is the largest text file that is read, in bytes.
const MaxText = 8 << 20

// Read reads a text file, following links. It gives "" for a file that is
// missing, not regular, or larger than [MaxText].
func Read(t fs.FS, name string) string { return ReadUpTo(t, name, MaxText) }

// ReadUpTo is [Read] for files that are larger than usual with that many bytes.
func ReadUpTo(t fs.FS, name string, most int64) string {
	f, err := t.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() || fi.Size() > most {
		return ""
	}
	// What a filesystem says of a size need not be what it gives.
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil || int64(len(b)) > most {
		return ""
	}
	return string(b)
}

// ErrTooMany is the error for a directory with more entries than are looked at.
var ErrTooMany = errors.New("the directory has too many entries")

// ReadDir lists the names in a directory, sorted. It is [ErrTooMany] if there are
// more than most: those are not read.
func ReadDir(t fs.FS, dir string, most int) ([]string, error) {
	f, err := t.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d, ok := f.(fs.ReadDirFile)
	if !ok {
		return nil, &fs.PathError{Op: "readdir", Path: dir, Err: errors.ErrUnsupported}
	}
	var names []string
	for {
		entries, err := d.ReadDir(most + 1 - len(names))
		for _, e := range entries {
			names = append(names, e.Name())
		}
		switch {
		case len(names) > most:
			return nil, &fs.PathError{Op: "readdir", Path: dir, Err: ErrTooMany}
		case err == io.EOF:
			slices.Sort(names)
			return names, nil
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
