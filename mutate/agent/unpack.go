package agent

import (
	"archive/tar"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unpack makes the files of a tar stream. Each takes the place of what has its
// name, in one step, except that directories stay what they are. A directory
// comes before what is in it, and all that is in it before anything else, so
// that it gets its time, its permissions and its attributes (among them those
// that files in it would inherit) when the stream leaves it.
func unpack(r io.Reader) (err error) {
	u := &unpacker{owners: map[string]ids{}, buf: make([]byte, MaxData)}
	defer func() { err = errors.Join(err, u.leave(0)) }()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		if !filepath.IsAbs(h.Name) || filepath.Clean(h.Name) != h.Name {
			return fmt.Errorf("unpack %q: not a clean absolute path", h.Name)
		}
		if err := u.one(h, t); err != nil {
			return fmt.Errorf("write %s: %w", h.Name, err)
		}
	}
}

// unpacker is at some place of the image's tree, and holds open the way there.
type unpacker struct {
	way    []place
	owners map[string]ids // as the image had them when they were first needed
	buf    []byte
}

// place is a directory of the image.
type place struct {
	path    string
	fd      int
	lasting bool        // it is known to be part of the image
	made    *tar.Header // what it is to be when it is left, if the stream made it
}

type ids struct{ uid, gid int }

func (u *unpacker) one(h *tar.Header, content io.Reader) error {
	if h.Name == "/" {
		if h.Typeflag != tar.TypeDir {
			return errors.New("the root is a directory")
		}
		return nil
	}
	if _, err := u.owner(h); err != nil { // before anything is made
		return err
	}
	dir, err := u.enter(filepath.Dir(h.Name))
	if err != nil {
		return err
	}
	base := filepath.Base(h.Name)
	if h.Typeflag == tar.TypeDir {
		return u.directory(dir, base, h)
	}
	err = u.create(dir, base, h, content)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return errors.New("a directory is there, and is not replaced by a file")
	}
	tmp := ".imgmut-" + rand.Text()
	if err := u.create(dir, tmp, h, content); err != nil {
		return err
	}
	if err := unix.Renameat(dir.fd, tmp, dir.fd, base); err != nil {
		return errors.Join(err, removeIfThere(dir.fd, tmp))
	}
	// Where both are names of one file, rename(2) does nothing.
	return removeIfThere(dir.fd, tmp)
}

// directory makes a directory and goes into it, unless it is there.
func (u *unpacker) directory(dir *place, base string, h *tar.Header) error {
	err := unix.Mkdirat(dir.fd, base, 0o700)
	if err == unix.EEXIST {
		var st unix.Stat_t
		if err := unix.Fstatat(dir.fd, base, &st, 0); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return errors.New("what is there is not a directory")
		}
		return nil
	}
	if err != nil {
		return err
	}
	fd, err := unix.Openat(dir.fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	u.way = append(u.way, place{path: h.Name, fd: fd, lasting: true, made: h})
	return nil
}

// enter goes to a directory and makes what is missing of the way there.
func (u *unpacker) enter(dir string) (*place, error) {
	if len(u.way) == 0 {
		fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		u.way = append(u.way, place{path: "/", fd: fd})
	}
	here := len(u.way)
	for here > 1 && !below(dir, u.way[here-1].path) {
		here--
	}
	if err := u.leave(here); err != nil {
		return nil, err
	}
	for {
		p := &u.way[len(u.way)-1]
		if p.path == dir {
			if p.lasting {
				return p, nil
			}
			p.lasting = true
			return p, checkLasting(p.fd, dir)
		}
		next, _, _ := strings.Cut(strings.TrimPrefix(dir[len(p.path):], "/"), "/")
		path := filepath.Join(p.path, next)
		fd, err := unix.Openat(p.fd, next, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			if err := checkLasting(p.fd, p.path); err != nil {
				return nil, err
			}
			if err := unix.Mkdirat(p.fd, next, 0o755); err != nil {
				return nil, fmt.Errorf("make %s: %w", path, err)
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
		u.way = append(u.way, place{path: path, fd: fd})
	}
}

// below says whether name is dir or in it.
func below(name, dir string) bool {
	return name == dir || dir == "/" || strings.HasPrefix(name, dir) && name[len(dir)] == '/'
}

// leave goes back to the first n places of the way.
func (u *unpacker) leave(n int) (err error) {
	for len(u.way) > n {
		p := u.way[len(u.way)-1]
		u.way = u.way[:len(u.way)-1]
		if p.made != nil && err == nil {
			if err = u.setAttributes(p.fd, p.made); err != nil {
				err = fmt.Errorf("write %s: %w", p.path, err)
			}
		}
		unix.Close(p.fd)
	}
	return err
}

// checkLasting refuses directories that are no part of the image, by whatever
// links they are reached: what is put on a tmpfs is gone with the step.
func checkLasting(fd int, dir string) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	switch st.Type {
	case unix.TMPFS_MAGIC, unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC:
		return fmt.Errorf("%s is not part of the image: it is made anew at every start", dir)
	}
	return nil
}

// create makes a file that is no directory. If there is one of that name, the
// error is EEXIST and nothing of the content has been read.
func (u *unpacker) create(dir *place, name string, h *tar.Header, content io.Reader) error {
	var err error
	switch h.Typeflag {
	case tar.TypeLink:
		return unix.Linkat(unix.AT_FDCWD, h.Linkname, dir.fd, name, 0)
	case tar.TypeSymlink:
		if err := unix.Symlinkat(h.Linkname, dir.fd, name); err != nil {
			return err
		}
		err = u.setLinkAttributes(dir.fd, name, h)
	case tar.TypeReg:
		const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
		fd, openErr := unix.Openat(dir.fd, name, flags, 0o600)
		if openErr != nil {
			return openErr
		}
		if err = u.fill(fd, h, content); err == nil {
			err = u.setAttributes(fd, h)
		}
		err = errors.Join(err, unix.Close(fd))
	default:
		return fmt.Errorf("a file of type %q", h.Typeflag)
	}
	if err != nil {
		return errors.Join(err, removeIfThere(dir.fd, name))
	}
	return nil
}

// fill writes the content of a regular file, with its holes.
func (u *unpacker) fill(fd int, h *tar.Header, content io.Reader) error {
	size, data, sparse, err := Sparse(h)
	if err != nil {
		return err
	}
	if !sparse {
		size, data = h.Size, []Range{{0, h.Size}}
	}
	for _, r := range data {
		for r.Length > 0 {
			n, err := io.ReadFull(content, u.buf[:min(r.Length, int64(len(u.buf)))])
			if err != nil {
				return err
			}
			if err := writeAt(fd, u.buf[:n], r.Offset); err != nil {
				return err
			}
			r.Offset, r.Length = r.Offset+int64(n), r.Length-int64(n)
		}
	}
	if sparse {
		return unix.Ftruncate(fd, size)
	}
	return nil
}

func writeAt(fd int, b []byte, offset int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, offset)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, offset = b[n:], offset+int64(n)
	}
	return nil
}

// setAttributes sets all but the content: owner first, because chown clears the
// set-user-ID bits and file capabilities, and the time last.
func (u *unpacker) setAttributes(fd int, h *tar.Header) error {
	o, err := u.owner(h)
	if err != nil {
		return err
	}
	if err := chownError(unix.Fchown(fd, o.uid, o.gid), o); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(h.Mode)&0o7777); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	for name, value := range Xattrs(h) {
		if err := unix.Fsetxattr(fd, name, []byte(value), 0); err != nil {
			return fmt.Errorf("set attribute %s: %w", name, err)
		}
	}
	times, err := headerTimes(h)
	if err != nil || times == nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
}

// setLinkAttributes is setAttributes for a symbolic link, which has no more.
func (u *unpacker) setLinkAttributes(dir int, name string, h *tar.Header) error {
	o, err := u.owner(h)
	if err != nil {
		return err
	}
	if err := chownError(unix.Fchownat(dir, name, o.uid, o.gid, unix.AT_SYMLINK_NOFOLLOW), o); err != nil {
		return err
	}
	times, err := headerTimes(h)
	if err != nil || times == nil {
		return err
	}
	return unix.UtimesNanoAt(dir, name, times, unix.AT_SYMLINK_NOFOLLOW)
}

// headerTimes are the times of access and modification, as utimensat(2) takes them.
func headerTimes(h *tar.Header) ([]unix.Timespec, error) {
	t, ok, err := Time(h)
	if err != nil || !ok {
		return nil, err
	}
	return []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Sec: t.Unix(), Nsec: int64(t.Nanosecond())}}, nil
}

func chownError(err error, o ids) error {
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w (no user namespace has the owner %d:%d: give the step an owner)", err, o.uid, o.gid)
	}
	if err != nil {
		return fmt.Errorf("chown to %d:%d: %w", o.uid, o.gid, err)
	}
	return nil
}

func removeIfThere(dir int, name string) error {
	if err := unix.Unlinkat(dir, name, 0); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}

// owner gives the numbers of the header's owner in this image.
func (u *unpacker) owner(h *tar.Header) (ids, error) {
	text := h.PAXRecords[ownerRecord]
	if text == "" {
		return ids{h.Uid, h.Gid}, nil
	}
	if o, ok := u.owners[text]; ok {
		return o, nil
	}
	o, err := lookUpOwner(text)
	if err == nil {
		u.owners[text] = o
	}
	return o, err
}

// lookUpOwner finds USER or USER:GROUP in the image. A user alone stands for
// his own group as well.
func lookUpOwner(text string) (o ids, err error) {
	name, group, grouped := strings.Cut(text, ":")
	if u, ok := findUser(func(a account) bool { return a.name == name }); ok {
		o = ids{u.id, u.primary}
	} else if o.uid, err = strconv.Atoi(name); err != nil {
		return o, fmt.Errorf("the image has no user %q", name)
	}
	if !grouped {
		return o, nil
	}
	if g, ok := findGroup(func(a account) bool { return a.name == group }); ok {
		o.gid = g.id
	} else if o.gid, err = strconv.Atoi(group); err != nil {
		return o, fmt.Errorf("the image has no group %q", group)
	}
	return o, nil
}
