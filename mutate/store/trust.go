package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
)

// imgmut works on the store by paths, as root more often than not. Whoever can
// write to a directory on the way could put a link there, and have root write,
// format, mount and remove elsewhere. So the store is used only if nobody but
// root and the user that imgmut runs as can change a name on the way to it, or
// in it. That is looked at once, when it is opened, and holds from then on:
// only these two could change it, and they need no tricks.
//
// There are two exceptions. In a directory with the sticky bit, such as /tmp,
// everybody can make names but not change those of others, so what is ours in
// it is safe; the store itself is no such directory. A link on the way is
// followed if its owner is trusted; in the store there are no links.

var errUntrusted = errors.New("cannot be trusted")

// othersWrite are the bits that let others write. An access control list shows
// in those of the group.
const othersWrite fs.FileMode = 0o022

// maxLinks is how many links lead to a directory at most, as in the kernel.
const maxLinks = 40

// Trusted is the error of [Open] if it would not trust what there is of a store in dir.
// It makes nothing.
func Trusted(dir string) error {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = follow(dir, os.Lstat)
	}
	if err == nil {
		err = trustPool(dir)
	}
	if err == nil {
		err = trustParts(dir, fs.ModeDir, objectDirs...)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// settle makes the directories on the way to dir that are missing, and gives
// dir's real path. All on the way to it can be trusted, and so can dir.
func settle(dir string) (real string, err error) { return follow(dir, lstatOrMkdir) }

// follow goes the way to dir, and gives its real path.
func follow(dir string, look func(string) (fs.FileInfo, error)) (real string, err error) {
	real, links := "/", 0
	for todo := split(dir); len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		next := filepath.Join(real, name) // real has no links, so ".." is what it seems
		fi, err := look(next)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrNoPlace, err)
		}
		if fi.Mode().Type() != fs.ModeSymlink {
			if err := trust(next, fi, fs.ModeDir, true); err != nil {
				return "", err
			}
			real = next
			continue
		}
		if err := trust(next, fi, fs.ModeSymlink, false); err != nil {
			return "", err
		}
		target, err := os.Readlink(next)
		if links++; err == nil && links > maxLinks {
			err = &fs.PathError{Op: "follow", Path: next, Err: unix.ELOOP}
		}
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrNoPlace, err)
		}
		if filepath.IsAbs(target) {
			real = "/"
		}
		todo = append(split(target), todo...)
	}
	return real, trustPart(real, fs.ModeDir)
}

// split gives the names of a path; those of an absolute one begin with the root.
func split(path string) []string {
	names := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	if filepath.IsAbs(path) {
		return append([]string{"/"}, names...)
	}
	return names
}

// lstatOrMkdir looks at a file, which it makes a directory if it is missing.
func lstatOrMkdir(path string) (fs.FileInfo, error) {
	if fi, err := os.Lstat(path); !os.IsNotExist(err) {
		return fi, err
	}
	if err := os.Mkdir(path, 0o755); err != nil && !os.IsExist(err) {
		return nil, err
	}
	return os.Lstat(path)
}

// trustParts looks at the parts of the store that are in dir, those that exist.
func trustParts(dir string, t fs.FileMode, names ...string) error {
	for _, name := range names {
		if err := trustPart(filepath.Join(dir, name), t); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

// trustPart looks at one part of the store, which has to be of type t.
func trustPart(path string, t fs.FileMode) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	return trust(path, fi, t, false)
}

// openPart opens a regular file of the store. It neither follows a link nor
// waits for the other end of a pipe.
func openPart(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, cmp.Or(trustPart(path, 0), err) // the first says more than ELOOP
	}
	fi, err := f.Stat()
	if err == nil {
		err = trust(path, fi, 0, false)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// trust is an error if a file is not of type t, or if others can change it: its
// owner, or whoever may write to it. sticky allows a sticky directory.
func trust(path string, fi fs.FileInfo, t fs.FileMode, sticky bool) error {
	var why, mend []string
	if is := fi.Mode().Type(); is == fs.ModeSymlink && t != is {
		return distrust(path, fi, "is a symbolic link, and the store has none", "remove it")
	} else if is != t {
		return distrust(path, fi, "is no "+map[fs.FileMode]string{0: "regular file", fs.ModeDir: "directory"}[t], "remove it")
	}
	if us := os.Geteuid(); !owned(fi) {
		why = append(why, "belongs to another user")
		mend = append(mend, fmt.Sprintf("chown -h %d %s", us, path))
	}
	if t != fs.ModeSymlink && fi.Mode()&othersWrite != 0 && (!sticky || fi.Mode()&fs.ModeSticky == 0) {
		why = append(why, "can be written by others")
		mend = append(mend, "chmod go-w "+path)
	}
	if why == nil {
		return nil
	}
	return distrust(path, fi, strings.Join(why, " and "), "if all that is there is yours: "+strings.Join(mend, " && "))
}

// owned says whether a file belongs to one of the two that imgmut trusts.
func owned(fi fs.FileInfo) bool {
	uid := fi.Sys().(*syscall.Stat_t).Uid
	return uid == 0 || int(uid) == os.Geteuid()
}

func distrust(path string, fi fs.FileInfo, why, mend string) error {
	uid := strconv.Itoa(int(fi.Sys().(*syscall.Stat_t).Uid))
	owner := "user " + uid
	if u, err := user.LookupId(uid); err == nil {
		owner += " (" + u.Username + ")"
	}
	return fault.New(fault.Host, "choose another place with --store or $IMGMUT_STORE, or "+mend,
		"%s %w: it %s (owner: %s, mode: %v)", path, errUntrusted, why, owner, fi.Mode())
}
