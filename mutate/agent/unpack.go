package agent

import (
	"archive/tar"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Records of a tar header beyond the standard (pax(1)).
const (
	// XattrRecord comes before the name of an extended attribute.
	XattrRecord = "SCHILY.xattr."
	// OwnerRecord is an owner as the recipe says it, USER or USER:GROUP: only
	// the image knows its own users.
	OwnerRecord = "IMGMUT.owner"
)

// unpack makes the files of a tar stream. Every file appears under its name
// complete; what was there is replaced, except directories.
func unpack(r io.Reader) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		if err := unpackOne(h, t); err != nil {
			return err // names its file
		}
	}
}

func unpackOne(h *tar.Header, content io.Reader) error {
	if !filepath.IsAbs(h.Name) || filepath.Clean(h.Name) != h.Name {
		return fmt.Errorf("unpack %q: not a clean absolute path", h.Name)
	}
	uid, gid, err := owner(h)
	if err != nil {
		return fmt.Errorf("write %s: %w", h.Name, err)
	}
	if err := os.MkdirAll(filepath.Dir(h.Name), 0o755); err != nil {
		return err
	}
	if err := checkLasting(filepath.Dir(h.Name)); err != nil {
		return fmt.Errorf("write %s: %w", h.Name, err)
	}
	fi, err := os.Stat(h.Name)
	if err == nil && fi.IsDir() {
		if h.Typeflag == tar.TypeDir {
			return nil
		}
		if l, err := os.Lstat(h.Name); err != nil || l.IsDir() {
			return fmt.Errorf("write %s: a directory is there (end the path with / to write into it)", h.Name)
		}
	}
	tmp := filepath.Join(filepath.Dir(h.Name), ".imgmut-"+rand.Text())
	if err := create(tmp, h, content); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", h.Name, err), removeIfThere(tmp))
	}
	err = dress(tmp, h, uid, gid)
	if err == nil {
		err = os.Rename(tmp, h.Name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", h.Name, err), removeIfThere(tmp))
	}
	return nil
}

// checkLasting refuses directories that are no part of the image, by whatever
// links they are reached: what is put on a tmpfs is gone with the step.
func checkLasting(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	switch st.Type {
	case unix.TMPFS_MAGIC, unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC:
		return fmt.Errorf("%s is not part of the image: it is made anew at every start", dir)
	}
	return nil
}

func create(name string, h *tar.Header, content io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return os.Mkdir(name, 0o700)
	case tar.TypeSymlink:
		return os.Symlink(h.Linkname, name)
	case tar.TypeReg:
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Close())
	}
	return fmt.Errorf("a file of type %q", h.Typeflag)
}

// dress sets all but the content: owner first, because chown clears the
// set-user-ID bits and file capabilities.
func dress(name string, h *tar.Header, uid, gid int) error {
	if err := os.Lchown(name, uid, gid); errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w (no user namespace has the owner %d:%d: give the step an owner)", err, uid, gid)
	} else if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	if err := unix.Chmod(name, uint32(h.Mode)&0o7777); err != nil {
		return &fs.PathError{Op: "chmod", Path: name, Err: err}
	}
	for k, v := range h.PAXRecords {
		attr, ok := strings.CutPrefix(k, XattrRecord)
		if !ok {
			continue
		}
		if err := unix.Lsetxattr(name, attr, []byte(v), 0); err != nil {
			return fmt.Errorf("set attribute %s: %w", attr, err)
		}
	}
	if h.ModTime.Unix() > 0 && h.Typeflag == tar.TypeReg {
		return os.Chtimes(name, time.Now(), h.ModTime)
	}
	return nil
}

func removeIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// owner gives the numbers of the header's owner in this image.
func owner(h *tar.Header) (uid, gid int, err error) {
	text := h.PAXRecords[OwnerRecord]
	if text == "" {
		return h.Uid, h.Gid, nil
	}
	name, group, grouped := strings.Cut(text, ":")
	if u, ok := findUser(func(a account) bool { return a.name == name }); ok {
		uid, gid = u.id, u.primary
	} else if uid, err = strconv.Atoi(name); err != nil {
		return 0, 0, fmt.Errorf("the image has no user %q", name)
	}
	if !grouped {
		return uid, gid, nil
	}
	if g, ok := findGroup(func(a account) bool { return a.name == group }); ok {
		gid = g.id
	} else if gid, err = strconv.Atoi(group); err != nil {
		return 0, 0, fmt.Errorf("the image has no group %q", group)
	}
	return uid, gid, nil
}
