package mount

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/thread"
)

// Room is a root directory that has nothing of the machine but libraries, for a program
// of the machine that works on the files of an image as root and follows links in them.
// There they lead to nothing: no link of an image, however it is made, reaches a file of
// the machine that is not in every machine, and none can be written but those of the
// image. Nothing of an image can be executed there, because its mounts are not for that.
//
// A room has no /proc. The program makes its own, in a process namespace of its own
// (unshare(1)): that of the machine has links that lead out.
type Room struct {
	namespace *os.File
}

// RoomOptions say what is in a room.
type RoomOptions struct {
	// Programs are the files in its /usr/bin: by their name, the path on the machine.
	Programs map[string]string
	// Places are what is mounted there, in this order. No link is followed on the way.
	Places []Place
	// Covers are files of what is mounted that are seen with another text: by their path.
	Covers map[string]string
}

// libraries are the directories of the machine that are seen in a room: what programs
// need that are linked to libraries, where distributions have them.
var libraries = []string{
	"/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store",
}

// NewRoom makes a room. It ends with Close; the descriptors of the places stay the
// caller's, but each of their mounts is in the room now, and in no other.
func NewRoom(o RoomOptions) (_ *Room, err error) {
	r := new(Room)
	thread.Own(func() {
		if err = unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return
		}
		if r.namespace, err = os.Open("/proc/thread-self/ns/mnt"); err != nil {
			return
		}
		if err = separate(); err != nil {
			return
		}
		err = o.furnish()
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a room: %w", err), r.Close())
	}
	return r, nil
}

// furnish makes the calling thread's root directory the room.
func (o RoomOptions) furnish() error {
	const at = "/sys" // a directory that every machine has, and that is not looked into here
	if err := unix.Mount("room", at, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=16m"); err != nil {
		return fmt.Errorf("mount a root: %w", err)
	}
	for _, dir := range []string{"usr/bin", "dev", "proc", "tmp", "run", "etc", "var/tmp", "covers"} {
		if err := os.MkdirAll(filepath.Join(at, dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range libraries {
		if err := show(dir, at); err != nil {
			return err
		}
	}
	for name, file := range o.Programs {
		if err := bindFile(file, filepath.Join(at, "usr/bin", name)); err != nil {
			return err
		}
	}
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "urandom": 9} {
		if err := unix.Mknod(filepath.Join(at, "dev", name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			return fmt.Errorf("make /dev/%s: %w", name, err)
		}
	}
	if err := enterAttached(at); err != nil {
		return err
	}
	root, err := os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, p := range o.Places {
		if err := p.attachStrictly(root); err != nil {
			return fmt.Errorf("mount %s: %w", p.At, err)
		}
	}
	return o.cover(root)
}

// show makes a directory of the machine be at the same place below a root, read-only, or
// a link if it is one.
func show(dir, root string) error {
	fi, err := os.Lstat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	at := filepath.Join(root, dir)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	if fi.Mode()&os.ModeSymlink != 0 {
		target, err := os.Readlink(dir)
		if err != nil {
			return err
		}
		return os.Symlink(target, at)
	}
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	return bind(dir, at)
}

func bindFile(file, at string) error {
	if err := os.WriteFile(at, nil, 0o644); err != nil {
		return err
	}
	return bind(file, at)
}

// bind shows a path of the machine at another, read-only.
func bind(from, at string) error {
	m, err := cloneOf(from, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := unix.MoveMount(int(m.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "bind", Path: at, Err: err}
	}
	return nil
}

// cloneOf makes a detached mount of a path of the machine. attributes are more than that it
// gives nobody rights.
func cloneOf(name string, attributes uint64) (*os.File, error) {
	m, err := cloneAttached(name, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|attributes)
	if err != nil {
		return nil, &os.PathError{Op: "bind", Path: name, Err: err}
	}
	return m, nil
}

// attachStrictly attaches a mount to a directory, which is made if it is not there. A
// link on the way is an error: it is the image's word, and leads to something else.
func (p Place) attachStrictly(root *os.File) error {
	at, err := openStrictly(root, p.At)
	if errors.Is(err, unix.ENOENT) {
		var parent *os.File
		if parent, err = openStrictly(root, path.Dir(p.At)); err != nil {
			return err
		}
		err = unix.Mkdirat(int(parent.Fd()), path.Base(p.At), 0o755)
		parent.Close()
		if err != nil {
			return &os.PathError{Op: "make", Path: p.At, Err: err}
		}
		at, err = openStrictly(root, p.At)
	}
	if err != nil {
		return err
	}
	defer at.Close()
	return Attach(p.Mount, at)
}

// cover shows files with the texts that they are to have.
func (o RoomOptions) cover(root *os.File) error {
	n := 0
	for name, text := range o.Covers {
		at, err := openStrictly(root, name)
		if err != nil {
			return err
		}
		n++
		err = coverWith(at, fmt.Sprintf("/covers/%d", n), text)
		at.Close()
		if err != nil {
			return fmt.Errorf("cover %s: %w", name, err)
		}
	}
	return nil
}

func coverWith(at *os.File, file, text string) error {
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	m, err := cloneOf(file, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return err
	}
	defer m.Close()
	return Attach(m, at)
}

// openStrictly opens a path below root in which no part is a link.
func openStrictly(root *os.File, name string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS}
	for {
		fd, err := unix.Openat2(int(root.Fd()), relative(name), &how)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// Enter calls f on a thread whose root directory is the room. What it starts is there,
// too; what it opens by a path is of the room.
func (r *Room) Enter(f func() error) (err error) {
	thread.Own(func() {
		// Threads of a Go program share their root directory, which has to end first.
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			return
		}
		if err = unix.Setns(int(r.namespace.Fd()), unix.CLONE_NEWNS); err != nil {
			err = fmt.Errorf("enter a room: %w", err)
			return
		}
		err = f()
	})
	return err
}

// Close ends the room, and all mounts in it, when nothing runs there any more.
func (r *Room) Close() error {
	if r.namespace == nil {
		return nil
	}
	return r.namespace.Close()
}

// Directory makes a mount of a directory of the machine, for a place in a room. Nothing in
// it can be executed there.
func Directory(name string, readOnly bool) (*os.File, error) {
	attributes := uint64(unix.MOUNT_ATTR_NOEXEC)
	if readOnly {
		attributes |= unix.MOUNT_ATTR_RDONLY
	}
	return cloneOf(name, attributes)
}
