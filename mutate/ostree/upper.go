package ostree

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
)

// What steps have changed lies in the upper directory of an overlay (overlayfs of the
// kernel's documentation): what is new or changed, whole; a device of the number 0:0 in
// place of what is gone; and directories of which nothing is left of what was below
// (trusted.overlay.opaque). It is put into a tree of hard links, in which no file may be
// written to. So each one is taken away, and that of the upper directory is moved there:
// nothing is copied, and hard links among new files stay.

// overlayAttr is what attributes of overlayfs begin with. None may get into a commit.
const overlayAttr = "trusted.overlay."

// mounted are the names in the root of a system at which a step has something else
// mounted, or that are no part of a commit. /etc comes later: see [Finish].
var mounted = []string{"etc", "var", "run", "dev", "proc", "sys", "tmp", "sysroot", "boot"}

// Apply moves what is in the directory upper of the volume, but for the names in skip, to
// the tree dir, which becomes like it. special says that the tree may have files that are
// no files: devices, sockets and pipes, which no commit can hold.
func (s *Sysroot) Apply(ctx context.Context, upper, dir string, skip []string, special bool) error {
	from, err := openat(s.Root, upper, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := openat(s.Root, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer to.Close()
	a := applier{ctx: ctx, special: special}
	if err := a.top(from, to, skip); err != nil {
		return fmt.Errorf("take over what the steps changed: %w", err)
	}
	return nil
}

// top moves all of a directory into one that stays, whatever became of it: that of a
// deployment's /etc cannot be removed.
func (a applier) top(from, to *os.File, skip []string) error {
	attrs, err := attributes(handle(from))
	if err != nil {
		return err
	}
	if _, opaque := attrs[overlayAttr+"opaque"]; opaque {
		names, err := to.Readdirnames(-1)
		for _, n := range names {
			if err == nil && !slices.Contains(skip, n) {
				err = remove(to, n)
			}
		}
		if err != nil {
			return err
		}
	}
	if err := likeness(from, to, attrs); err != nil {
		return err
	}
	return a.all(from, to, "/", skip)
}

// applier moves an upper directory to a tree.
type applier struct {
	ctx     context.Context
	special bool
}

// all moves what is in a directory. name is that in the system, for errors.
func (a applier) all(from, to *os.File, name string, skip []string) error {
	if err := a.ctx.Err(); err != nil {
		return context.Cause(a.ctx)
	}
	names, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if slices.Contains(skip, n) {
			continue
		}
		if err := a.one(from, to, n, path.Join(name, n)); err != nil {
			return fmt.Errorf("%s: %w", path.Join(name, n), err)
		}
	}
	return nil
}

// one moves what has a name in the directory from.
func (a applier) one(from, to *os.File, n, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(from.Fd()), n, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	switch {
	case kind == unix.S_IFCHR && st.Rdev == 0:
		return remove(to, n)
	case kind == unix.S_IFDIR:
		return a.directory(from, to, n, name)
	case kind != unix.S_IFREG && kind != unix.S_IFLNK && !a.special:
		return fault.New(fault.Step, "have a step remove it", "a device, socket or pipe, of which ostree can make no commit")
	}
	if kind == unix.S_IFREG || kind == unix.S_IFLNK {
		if err := cleanFile(from, n, kind == unix.S_IFREG); err != nil {
			return err
		}
	}
	// A step in a user namespace cannot write a label, so what it replaces may have one that
	// it has not.
	file := path.Join(handle(from), n)
	if had := label(path.Join(handle(to), n)); had != "" && label(file) == "" {
		if err := unix.Lsetxattr(file, "security.selinux", []byte(had), 0); err != nil {
			return err
		}
	}
	if err := remove(to, n); err != nil {
		return err
	}
	return unix.Renameat(int(from.Fd()), n, int(to.Fd()), n)
}

// directory moves a directory: into the one that is there, unless that is to be emptied.
func (a applier) directory(from, to *os.File, n, name string) error {
	source, err := openat(from, n, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer source.Close()
	attrs, err := attributes(handle(source))
	if err != nil {
		return err
	}
	if _, ok := attrs[overlayAttr+"redirect"]; ok {
		return errors.New("a directory that overlayfs has renamed, which it was told not to do")
	}
	_, opaque := attrs[overlayAttr+"opaque"]
	var st unix.Stat_t
	err = unix.Fstatat(int(to.Fd()), n, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && (opaque || st.Mode&unix.S_IFMT != unix.S_IFDIR) {
		if err = remove(to, n); err == nil {
			err = unix.ENOENT
		}
	}
	if err == unix.ENOENT {
		err = unix.Mkdirat(int(to.Fd()), n, 0o700)
	}
	if err != nil {
		return err
	}
	target, err := openat(to, n, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer target.Close()
	if err := likeness(source, target, attrs); err != nil {
		return err
	}
	return a.all(source, target, name, nil)
}

// likeness gives a directory the owner, mode and attributes of another. A label of
// SELinux that it has stays if the other has none: no step can write one.
func likeness(source, target *os.File, attrs map[string]string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(source.Fd()), &st); err != nil {
		return err
	}
	if err := unix.Fchown(int(target.Fd()), int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(int(target.Fd()), st.Mode&0o7777); err != nil {
		return err
	}
	has, err := attributes(handle(target))
	if err != nil {
		return err
	}
	for key := range has {
		if _, ok := attrs[key]; !ok && key != "security.selinux" {
			if err := unix.Fremovexattr(int(target.Fd()), key); err != nil {
				return err
			}
		}
	}
	for key, value := range attrs {
		if !strings.HasPrefix(key, overlayAttr) && has[key] != value {
			if err := unix.Fsetxattr(int(target.Fd()), key, []byte(value), 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// cleanFile takes off a file what is overlayfs's own, and what a user namespace has made
// of capabilities.
func cleanFile(dir *os.File, n string, regular bool) error {
	file := path.Join(handle(dir), n)
	attrs, err := attributes(file)
	if err != nil {
		return err
	}
	for key, value := range attrs {
		switch {
		case key == overlayAttr+"metacopy":
			return errors.New("a file without its bytes, which overlayfs was told not to make")
		case strings.HasPrefix(key, overlayAttr):
			err = unix.Lremovexattr(file, key)
		case key == "security.capability" && regular:
			var plain string
			if plain, err = plainCapability(value); err == nil && plain != value {
				err = unix.Lsetxattr(file, key, []byte(plain), 0)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Capabilities of files (linux/capability.h): revision 3 is revision 2 and the user id
// that is root where it counts, which for a file of the system is 0.
const (
	capRevision  = 0xff000000
	capRevision2 = 0x02000000
	capRevision3 = 0x03000000
	capSize2     = 20
	capSize3     = 24
)

// plainCapability is a capability as the machine's root would have written it: as another
// revision the same capability would be another object.
func plainCapability(value string) (string, error) {
	b := []byte(value)
	if len(b) != capSize3 || binary.LittleEndian.Uint32(b)&capRevision != capRevision3 {
		return value, nil
	}
	if root := binary.LittleEndian.Uint32(b[capSize2:]); root != 0 {
		return "", fmt.Errorf("its capabilities are of the user namespace of %d", root)
	}
	binary.LittleEndian.PutUint32(b, binary.LittleEndian.Uint32(b)&^capRevision|capRevision2)
	return string(b[:capSize2]), nil
}

// handle is a path by which system calls reach an open directory that take no descriptor.
func handle(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// maxAttrs is how many bytes the names of a file's attributes, and each value, may have
// (XATTR_LIST_MAX and XATTR_SIZE_MAX of linux/limits.h). Most files have none.
const maxAttrs = 64 << 10

// attributes are the extended attributes of a file. A link at the end of the path is not
// followed, unless it is the handle of an open directory.
func attributes(file string) (map[string]string, error) {
	list, get := unix.Llistxattr, unix.Lgetxattr
	if path.Dir(file) == "/proc/self/fd" {
		list, get = unix.Listxattr, unix.Getxattr
	}
	n, err := list(file, nil)
	if n == 0 && err == nil || err == unix.ENOTSUP {
		return nil, nil
	}
	names := make([]byte, maxAttrs)
	if err == nil {
		n, err = list(file, names)
	}
	if err != nil {
		return nil, err
	}
	attrs := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, maxAttrs)
		n, err := get(file, name, value)
		if err != nil {
			return nil, err
		}
		attrs[name] = string(value[:n])
	}
	return attrs, nil
}

// remove removes what has a name in a directory, with all that is in it. It is no error
// if there is nothing.
func remove(dir *os.File, name string) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	below, err := openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer below.Close()
	names, err := below.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := remove(below, n); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR); err != nil {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}
