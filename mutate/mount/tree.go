package mount

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/thread"
)

// Place is something that is mounted, and where in a tree it is. One of Mount, Bind
// and Sealed says what.
type Place struct {
	At    string   // absolute path in the tree; "/" comes first
	Mount *os.File `json:"-"`          // a detached mount, which is attached there
	Bind  string   `json:",omitempty"` // a path in the tree, which is shown there as well
	// Recursive says of a bind that what is mounted below that path is shown too.
	Recursive bool   `json:",omitempty"`
	Sealed    string `json:",omitempty"` // an empty directory which nobody can write to, and why it is there
	// Beside says of a mount that it is not in the tree, but beside it, and of a bind
	// that its path is there. There is one such mount at most, before all else: that of
	// a volume of which a system sees only parts, as of one with ostree's deployments.
	Beside   bool `json:",omitempty"`
	ReadOnly bool `json:",omitempty"` // of a bind: nobody can write there
	// Filesystem tells what is on one filesystem: two places may show parts of it. It
	// is -1 for what nobody can write to, or what is no part of an image.
	Filesystem int `json:"-"`
}

// Tree is one or more mounts that are attached to each other, and nothing else: it
// is the files of a system as the system sees them.
type Tree struct {
	// Root is its root directory, an O_PATH descriptor. Paths that are opened from
	// there (openat2(2) with RESOLVE_IN_ROOT) lead through all of the mounts.
	Root *os.File
	// Missing are the places for which the tree has no directory.
	Missing   []Place
	namespace *os.File // which the mounts are in
}

// Assemble attaches mounts to each other where nobody else sees them. The tree ends
// with Close; the mounts' descriptors stay the caller's.
func Assemble(places []Place) (_ *Tree, err error) {
	if len(places) == 1 && !places[0].Beside {
		fd, err := unix.FcntlInt(places[0].Mount.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		return &Tree{Root: os.NewFile(uintptr(fd), "/")}, nil
	}
	t := new(Tree)
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	thread.Own(func() {
		if err = unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return
		}
		// A namespace ends with the last that is in it, or has it open.
		if t.namespace, err = os.Open("/proc/thread-self/ns/mnt"); err != nil {
			return
		}
		if err = separate(); err != nil {
			return
		}
		var own []*os.File
		if places, own, err = besides(places, "/sys"); err != nil {
			return
		}
		defer closeAll(own)
		if err = enterRoot(places[0].Mount); err != nil {
			return
		}
		if t.Root, err = os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
			return
		}
		for _, p := range places[1:] {
			if err = p.attach(t.Root); err != nil && !errors.Is(err, unix.ENOENT) {
				err = fmt.Errorf("mount %s: %w", p.At, err)
				return
			}
			if err != nil {
				t.Missing = append(t.Missing, p)
			}
		}
		err = nil
	})
	return t, err
}

// separate keeps what is mounted in the calling thread's namespace from the machine.
func separate() error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("separate mounts: %w", err)
	}
	return nil
}

// besides attaches the mount that is beside the tree, if there is one, to the directory
// at, and gives places without it, in which the binds of its paths are mounts of their
// own: a part can be taken only of what is attached. own are the caller's to close.
func besides(places []Place, at string) (all []Place, own []*os.File, err error) {
	if len(places) == 0 || !places[0].Beside {
		return places, nil, nil
	}
	beside := places[0].Mount
	if err := unix.MoveMount(int(beside.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, nil, fmt.Errorf("attach a volume: %w", err)
	}
	for _, p := range places[1:] {
		if p.Beside {
			m, err := clone(beside, p)
			if err != nil {
				closeAll(own)
				return nil, nil, fmt.Errorf("mount %s: %w", p.At, err)
			}
			own = append(own, m)
			p = Place{At: p.At, Mount: m}
		}
		all = append(all, p)
	}
	return all, own, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// clone makes a mount of the path below root that a bind is of.
func clone(root *os.File, bind Place) (*os.File, error) {
	name, flags := bind.Bind, uint(unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if bind.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	from, err := openInside(root, name)
	if err != nil {
		return nil, fmt.Errorf("bind %s: %w", name, err)
	}
	defer from.Close()
	fd, err := unix.OpenTree(int(from.Fd()), "", flags)
	if err != nil {
		return nil, fmt.Errorf("bind %s: %w", name, err)
	}
	if bind.ReadOnly {
		err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		if err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("make %s read-only: %w", name, err)
		}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// enterRoot makes a detached mount the root directory of the calling thread, and
// takes all other mounts out of its namespace: those of the machine would stay busy.
func enterRoot(root *os.File) error {
	// On a directory that every machine has. It goes with the machine's root.
	const here = "/proc"
	if err := unix.MoveMount(int(root.Fd()), "", unix.AT_FDCWD, here, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach a root: %w", err)
	}
	return enterAttached(here)
}

// enterAttached makes what is mounted on a directory the root of the calling thread.
func enterAttached(here string) error {
	if err := unix.Chdir(here); err != nil {
		return fmt.Errorf("enter a root: %w", err)
	}
	// With both the same, the old root lands on top of the new one: pivot_root(2).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the machine's mounts: %w", err)
	}
	return unix.Chdir("/")
}

// Close ends the tree.
func (t *Tree) Close() error {
	var errs []error
	for _, f := range []*os.File{t.Root, t.namespace} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// attachAll attaches places below root, in their order. Directories that are
// missing are made, as the system does at its start; owner is root's id there.
func attachAll(root *os.File, places []Place, owner uint32) error {
	for _, p := range places {
		err := p.attach(root)
		if errors.Is(err, unix.ENOENT) {
			if err = p.makeDirs(root, owner); err == nil {
				err = p.attach(root)
			}
			if errors.Is(err, unix.EROFS) {
				continue // the system itself could not either
			}
		}
		if err != nil {
			return fmt.Errorf("mount %s: %w", p.At, err)
		}
	}
	return nil
}

func (p Place) attach(root *os.File) error {
	at, err := openInside(root, p.At)
	if err != nil {
		return err
	}
	defer at.Close()
	m, err := p.mount(root)
	if err != nil {
		return err
	}
	if m != p.Mount {
		defer m.Close()
	}
	return Attach(m, at)
}

// mount is what is attached.
func (p Place) mount(root *os.File) (*os.File, error) {
	switch {
	case p.Mount != nil:
		return p.Mount, nil
	case p.Sealed != "":
		return newSealed(p.Sealed)
	}
	return clone(root, p)
}

// sealedNote is the one file of a place that nobody can write to.
const sealedNote = "README.imgmut"

// newSealed makes the mount of a directory that has nothing but the reason why.
func newSealed(why string) (*os.File, error) {
	c, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(c)
	for _, option := range [][2]string{{"mode", "0755"}, {"size", "64k"}} {
		if err := unix.FsconfigSetString(c, option[0], option[1]); err != nil {
			return nil, err
		}
	}
	if err := unix.FsconfigCreate(c); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(c, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, err
	}
	m := os.NewFile(uintptr(fd), "sealed")
	note, err := unix.Openat(fd, sealedNote, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o444)
	if err == nil {
		_, err = unix.Write(note, []byte(why+"\n"))
		unix.Close(note)
	}
	if err == nil {
		err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// OpenRoot opens the root directory of what places will be a tree of: an O_PATH
// descriptor, by which one comes to all that is mounted there once it is. Of a root that
// is a part of the mount beside it, only that part.
func OpenRoot(places []Place) (*os.File, error) {
	for n, p := range places {
		switch {
		case p.Beside && p.Mount != nil:
		case p.Beside && n > 0 && p.At == "/":
			return openInside(places[0].Mount, p.Bind)
		case p.Mount != nil && p.At == "/":
			return openInside(p.Mount, "/")
		}
	}
	return nil, errors.New("nothing to mount as the root")
}

// openInside opens a path of the tree below root, whose links lead nowhere else.
func openInside(root *os.File, name string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(int(root.Fd()), relative(name), &how)
		if err == unix.EAGAIN || err == unix.EINTR { // something was mounted or renamed meanwhile
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

func relative(name string) string { return "./" + strings.TrimPrefix(name, "/") }

// makeDirs makes what is missing of the place, and of what is bound there.
func (p Place) makeDirs(root *os.File, owner uint32) error {
	for _, name := range []string{p.At, p.Bind} {
		if name == "" {
			continue
		}
		f, err := openInside(root, name)
		if err == nil {
			f.Close()
		}
		if errors.Is(err, unix.ENOENT) {
			if err := makeDirs(root, name, owner); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeDirs makes a directory of the tree and those above it that are missing.
func makeDirs(root *os.File, name string, owner uint32) error {
	parent, err := openInside(root, path.Dir(name))
	if errors.Is(err, unix.ENOENT) && path.Dir(name) != name {
		if err = makeDirs(root, path.Dir(name), owner); err == nil {
			parent, err = openInside(root, path.Dir(name))
		}
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	base := path.Base(name)
	err = unix.Mkdirat(int(parent.Fd()), base, 0o755)
	if err == unix.EEXIST {
		return nil // and it is a link to nothing
	}
	if err != nil {
		return &os.PathError{Op: "make", Path: name, Err: err}
	}
	return unix.Fchownat(int(parent.Fd()), base, int(owner), int(owner), unix.AT_SYMLINK_NOFOLLOW)
}
