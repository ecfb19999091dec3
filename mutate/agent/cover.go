package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// placeholders makes something to mount on where a covered file is missing:
// an empty file, at the end of the symbolic link if it is a dangling one (the
// usual /etc/resolv.conf points into /run). undo removes what was made, and
// nothing else.
func placeholders(covers []Cover) (undo func() error, err error) {
	var made []string // in the order of making
	undo = func() error {
		var errs []error
		for i := len(made) - 1; i >= 0; i-- {
			// A command may have put something of its own there: that stays.
			if fi, err := os.Lstat(made[i]); err == nil && (fi.IsDir() || fi.Mode().IsRegular() && fi.Size() == 0) {
				if err := os.Remove(made[i]); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
					errs = append(errs, err)
				}
			}
		}
		return errors.Join(errs...)
	}
	for _, c := range covers {
		target, err := follow(c.Path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("cover %s: %w", c.Path, err), undo())
		}
		if _, err := os.Lstat(target); err == nil {
			continue
		}
		dirs, err := makeParents(filepath.Dir(target), 0o755)
		made = append(made, dirs...)
		if err == nil {
			err = os.WriteFile(target, nil, 0o644)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("cover %s: %w", c.Path, err), undo())
		}
		made = append(made, target)
	}
	return undo, nil
}

// follow resolves the symbolic links at the end of a path, also where they
// point at nothing. It gives up on a circle as the kernel does (ELOOP).
func follow(path string) (string, error) {
	for range 40 {
		link, err := os.Readlink(path)
		if err != nil {
			return path, nil
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(path), link)
		}
		path = link
	}
	return "", unix.ELOOP
}

// mountCover binds the cover's content over its path in this thread's mount
// namespace.
func mountCover(i int, c Cover) error {
	target, err := follow(c.Path)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s/cover-%d", workDir, i)
	if err := os.WriteFile(name, []byte(c.Content), 0o600); err != nil {
		return err
	}
	if err := os.Chmod(name, fs.FileMode(c.Mode)); err != nil {
		return err
	}
	return unix.Mount(name, target, "", unix.MS_BIND, "")
}

// makeParents is os.MkdirAll that tells what it made, outermost first.
func makeParents(dir string, mode fs.FileMode) (made []string, err error) {
	if _, err := os.Stat(dir); err == nil {
		return nil, nil
	}
	if made, err = makeParents(filepath.Dir(dir), mode); err != nil {
		return made, err
	}
	if err := os.Mkdir(dir, mode); err != nil {
		return made, err
	}
	return append(made, dir), nil
}
