package machined

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A private host has a root filesystem of its own: a tmpfs, on which appear
// only those directories of the machine that are needed.
//
// A new mount namespace begins as a copy of every mount of the machine, and a
// copy keeps its filesystem busy. Where the machine's mounts are shared, as
// systemd makes them, the kernel removes the copy together with the original.
// Where they are private, as on machines without systemd, it does not: a disk
// that the user unmounts would stay attached until the private host ends. To
// make the machine's mounts shared would change the machine. So only copies of
// the needed directories are kept.
//
// A root of its own also gives the host an empty /tmp, where what systemd and
// machined leave when they are killed does not stay, and a /sys/fs/cgroup with
// nothing on it: the kernel refuses to mount cgroup2 over cgroup2.

// machineDirs are the directories of the machine that hold the host's programs
// and their configuration. Those that do not exist are skipped; links, such as
// /bin, stay links.
var machineDirs = []string{"/usr", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

// machinedPool is the directory in which every version of machined keeps images.
const machinedPool = "/var/lib/machines"

// newRoot is where the new root is mounted before it becomes the root: a
// directory that every machine has, and that is not cloned.
const newRoot = "/sys"

// tree is a copy of the mounts at and below a path of the machine. It is
// attached nowhere at first, and so survives the change of the root.
type tree struct {
	path string
	file *os.File
	dir  bool
}

// cloneTree copies the mount at path, and those below it if flags has
// AT_RECURSIVE. attributes, such as MOUNT_ATTR_RDONLY, are set on all of them.
func cloneTree(path string, flags uint, attributes uint64) (*tree, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)
	if err != nil {
		return nil, &fs.PathError{Op: "open_tree", Path: path, Err: err}
	}
	t := &tree{path: path, file: os.NewFile(uintptr(fd), path)}
	set := unix.MountAttr{Attr_set: attributes}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|flags, &set); err != nil {
		return nil, &fs.PathError{Op: "mount_setattr", Path: path, Err: err}
	}
	st, err := t.file.Stat()
	if err != nil {
		return nil, err
	}
	t.dir = st.IsDir()
	return t, nil
}

// attach mounts the tree at its path, which it makes if need be, and closes it.
func (t *tree) attach() error {
	defer t.file.Close()
	if err := t.makePlace(); err != nil {
		return err
	}
	err := unix.MoveMount(int(t.file.Fd()), "", unix.AT_FDCWD, t.path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return &fs.PathError{Op: "move_mount", Path: t.path, Err: err}
	}
	return nil
}

func (t *tree) makePlace() error {
	if _, err := os.Stat(t.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if t.dir {
		return os.MkdirAll(t.path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(t.path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(t.path, nil, 0o600)
}

// changeRoot replaces the root filesystem and everything that is mounted below
// it. paths are what containers need of the machine: see [Options.Paths].
func changeRoot(paths []string) error {
	// Slaves follow the machine when it unmounts something, and what is mounted
	// here does not appear on the machine.
	if err := (mount{target: "/", flags: unix.MS_SLAVE | unix.MS_REC}).do(); err != nil {
		return err
	}
	console, err := cloneConsole()
	if err != nil {
		return err
	}
	trees, links, err := cloneMachineDirs()
	if err != nil {
		return err
	}
	// Sorted, so that what is below another path comes after it.
	for _, path := range slices.Sorted(slices.Values(paths)) {
		t, err := cloneTree(path, unix.AT_RECURSIVE, 0)
		if err != nil {
			return err
		}
		trees = append(trees, t)
	}
	if err := switchRoot(); err != nil {
		return err
	}
	return fillRoot(console, trees, links)
}

// fillRoot mounts on the new root what belongs there.
func fillRoot(console *tree, trees []*tree, links map[string]string) error {
	if err := mountAll(ownMounts); err != nil {
		return err
	}
	for _, t := range append([]*tree{console}, trees...) {
		if err := t.attach(); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/tmp", "/var/tmp", insideUnits, insideEmpty, "/run/dbus", "/run/lock"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/tmp", "/var/tmp"} {
		if err := os.Chmod(dir, 0o777|fs.ModeSticky); err != nil {
			return err
		}
	}
	for path, target := range links {
		if err := os.Symlink(target, path); err != nil {
			return err
		}
	}
	return mountAll(hidingMounts)
}

// cloneMachineDirs copies machineDirs and machined's pool. links are the symbolic
// links of the new root with their targets: those of machineDirs, and /var/run.
func cloneMachineDirs() (trees []*tree, links map[string]string, err error) {
	links = map[string]string{"/var/run": "/run"}
	for _, dir := range machineDirs {
		if links[dir], err = os.Readlink(dir); err == nil {
			continue
		}
		delete(links, dir)
		// Read-only, because PID 1 would write a missing /etc/machine-id, and
		// enable every preset unit in /etc if that was missing.
		t, err := cloneTree(dir, unix.AT_RECURSIVE, unix.MOUNT_ATTR_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		trees = append(trees, t)
	}
	pool, flags := machinedPool, uint(unix.AT_RECURSIVE)
	if !exists(pool) {
		// It is made when the first image is registered, and then appears in its
		// parent. What is mounted elsewhere in that is not needed.
		pool, flags = filepath.Dir(pool), 0
	}
	t, err := cloneTree(pool, flags, 0)
	return append(trees, t), links, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// cloneConsole makes a /dev/console of the terminal that is standard error. It
// must be called while the path of that still leads to it.
func cloneConsole() (*tree, error) {
	path, err := os.Readlink("/proc/self/fd/2")
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(path, "/dev/pts/") {
		return nil, fmt.Errorf("standard error is %s, not a terminal", path)
	}
	t, err := cloneTree(path, 0, 0)
	if err != nil {
		return nil, err
	}
	t.path = "/dev/console"
	return t, nil
}

// switchRoot makes an empty tmpfs the root and drops all other mounts.
func switchRoot() error {
	root := mount{source: "tmpfs", target: newRoot, fstype: "tmpfs",
		flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=755"}
	if err := root.do(); err != nil {
		return err
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	// With both the same, the old root lands on top of the new one, and no
	// directory need be made for it: pivot_root(2).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root filesystem: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the machine's mounts: %w", err)
	}
	return os.Chdir("/")
}

// mount is one mount(2) call.
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
	optional               bool // skipped where target does not exist
}

// safely are the flags of a mount that holds no programs and no devices.
const safely = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// ownMounts are the filesystems that a private host does not take from the
// machine, in order. Their mount points are made.
var ownMounts = []mount{
	{source: "proc", target: "/proc", fstype: "proc", flags: safely},
	{source: "sysfs", target: "/sys", fstype: "sysfs", flags: safely},
	{source: "cgroup2", target: "/sys/fs/cgroup", fstype: "cgroup2", flags: safely},
	// The one devtmpfs of the kernel, where the loop devices show up by which machined
	// looks into images. The /dev of a container is a tmpfs without them.
	{source: "devtmpfs", target: "/dev", fstype: "devtmpfs", flags: unix.MS_NOSUID},
	{source: "tmpfs", target: "/dev/shm", fstype: "tmpfs",
		flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=1777"},
	{source: "tmpfs", target: "/run", fstype: "tmpfs", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=755"},
	// The kernel lets a user namespace mount proc only where one without
	// anything mounted over it is visible (mount_too_revealing), and /proc will
	// not be such a one: see hidingMounts.
	{source: "proc", target: insideProc, fstype: "proc", flags: safely},
}

// hidingMounts keep PID 1 from what is the machine's, in order.
var hidingMounts = []mount{
	// PID 1 raises fs.file-max, fs.nr_open and net.unix.max_dgram_qlen
	// (systemd's main.c), though no unit asks for it.
	{source: "/proc/sys", target: "/proc/sys", flags: unix.MS_BIND},
	{target: "/proc/sys", flags: unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | safely},
	// PID 1 takes the keyboard request signal of tty0.
	{source: "/dev/null", target: "/dev/tty0", flags: unix.MS_BIND, optional: true},
}

func mountAll(mounts []mount) error {
	for _, m := range mounts {
		if err := m.do(); err != nil {
			return err
		}
	}
	return nil
}

// do mounts, after making the mount point of a filesystem of our own.
func (m mount) do() error {
	if m.fstype != "" {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
	}
	if m.optional && !exists(m.target) {
		return nil
	}
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
	}
	return nil
}
