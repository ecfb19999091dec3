package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A run makes files outside of the store, which get their names there when they
// are whole. Until then each has a link in the run's directory, by which the
// next run finds it if this one dies:
//
//	outside-DEVICE-INODE-TEXT -> /the/directory/.imgmut-TEXT
//
// Others may write to that directory and to those above it, so the path may
// lead elsewhere by then. Therefore the link says which directory it was, and
// only a file of the run's own random text is ever removed, in that directory.
// What cannot be proven to be the run's stays.

// outside begins the names of these links.
const outside = "outside-"

// hidden says whether a file is called as those without a name are.
func hidden(name string) bool {
	return strings.HasPrefix(name, ".imgmut-") || strings.HasPrefix(name, ".#imgmut-")
}

// Outside makes an empty file in dir, which need not be in the store, for what
// will be renamed to a name there. Until it is, it is the run's: Close removes
// it, and if the process dies the next run does. pattern is its name, with "*"
// for what makes it unique; it begins with ".imgmut-" or ".#imgmut-".
func (w *Workspace) Outside(dir, pattern string) (*os.File, error) {
	text := rand.Text()
	name := strings.Replace(pattern, "*", text, 1)
	if !hidden(name) || !strings.Contains(name, text) {
		return nil, fmt.Errorf("make a file in %s: the next run would not know %q for ours", dir, name)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	root, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	f, err := w.makeOutside(root, name, text)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	if w.outside == nil {
		w.outside = map[string]*os.Root{}
	}
	w.outside[f.Name()] = root
	return f, nil
}

// makeOutside makes the link first, and has it on the disk first: a file
// without one would be found by nobody.
func (w *Workspace) makeOutside(root *os.Root, name, text string) (*os.File, error) {
	link, err := linkName(root, text)
	if err != nil {
		return nil, err
	}
	if err := os.Symlink(root.Name()+name, w.Path(link)); err != nil {
		return nil, err
	}
	if err := syncDir(w.dir); err != nil {
		return nil, err
	}
	return root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666) // less the umask: it is the caller's
}

// openDir opens a directory and nothing else: the slash keeps it from waiting
// for the other end of a pipe.
func openDir(dir string) (*os.Root, error) {
	return os.OpenRoot(strings.TrimRight(dir, "/") + "/")
}

// linkName is what the link to a file in a directory is called: device and
// inode set the directory apart from all others of the machine.
func linkName(root *os.Root, text string) (string, error) {
	fi, err := root.Stat(".")
	if err != nil {
		return "", err
	}
	st := fi.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%s%x-%x-%s", outside, st.Dev, st.Ino, text), nil
}

// Deliver gives a file from [Workspace.Outside] its name, in the directory it is in,
// once it is on the disk, and closes it.
func (w *Workspace) Deliver(f *os.File, target string) error {
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	root, ok := w.outside[f.Name()]
	if !ok {
		return fmt.Errorf("deliver %s: %w", f.Name(), fs.ErrClosed)
	}
	if err := root.Rename(filepath.Base(f.Name()), filepath.Base(target)); err != nil {
		return err
	}
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// closeOutside removes the files of a living run that got no name. It has
// their directories open, whatever their paths have come to mean.
func (w *Workspace) closeOutside() error {
	for path, root := range w.outside {
		if err := root.Remove(filepath.Base(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove what the run left outside the store: %w: %w", errLater, err)
		}
		root.Close()
		delete(w.outside, path)
	}
	return nil
}

// sweepOutside removes the file that a link of a dead run names, if it is
// certain that the run made it.
func sweepOutside(link string) error {
	path, err := os.Readlink(link)
	if err != nil {
		return nil // no link: not of our making
	}
	dir, name := filepath.Split(path)
	text := link[strings.LastIndex(link, "-")+1:]
	if text == "" || !hidden(name) || !strings.Contains(name, text) {
		return nil
	}
	root, err := openDir(dir)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errLater, err)
	}
	defer root.Close()
	if is, err := linkName(root, text); err != nil || is != filepath.Base(link) {
		return nil // another directory
	}
	fi, err := root.Lstat(name)
	if err != nil || !fi.Mode().IsRegular() || !owned(fi) {
		return nil
	}
	// Whoever puts another file there in this moment can write to the directory,
	// and takes nobody's file but their own: what goes is this one name.
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errLater, err)
	}
	return nil
}

// gone says whether there is no directory at a path any more.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}
