package mount

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// A step that works on how the image starts gets a /dev with the image's disk in it. It
// is a tmpfs that the machine's root makes: in one that is made in the user namespace of
// a guest no node would be a device.

// Lent is a mount that a guest gets beside the image's files, and shows to some of its
// commands: see agent.Lend.
type Lent struct {
	Name  string   // in the directory of what is lent, "" for that itself
	Mount *os.File `json:"-"`
}

// LentDev is the directory of what is lent that is a /dev.
const LentDev = "dev"

// common is what every /dev has: nodes, by their major and minor numbers, links, and
// directories on which others are mounted (systemd.io, CONTAINER_INTERFACE).
var common = struct {
	nodes map[string][2]uint32
	links map[string]string
	dirs  []string
}{
	map[string][2]uint32{"null": {1, 3}, "zero": {1, 5}, "full": {1, 7}, "random": {1, 8}, "urandom": {1, 9}, "tty": {5, 0}},
	map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
		"ptmx": "pts/ptmx",
	},
	[]string{"shm", "pts", "mqueue"},
}

// NewLent makes the directory of what is lent, with a /dev in it: what every one has,
// the disk and its partitions by the names that they have in a virtual machine, which
// only owner may use, and links, by their paths in /dev, to those. It is a detached mount.
func (d *Disk) NewLent(owner uint32, links map[string]string) (_ *os.File, err error) {
	m, err := NewTmpfs("dev", unix.MOUNT_ATTR_NOEXEC, "mode=0755", "size=1m", fmt.Sprintf("uid=%d", owner), fmt.Sprintf("gid=%d", owner))
	if err != nil {
		return nil, fmt.Errorf("make a /dev: %w", err)
	}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	w := devWriter{fd: int(m.Fd()), owner: int(owner), made: map[string]bool{".": true}}
	for name, n := range common.nodes {
		w.node(name, unix.S_IFCHR|0o666, n[0], n[1])
	}
	for _, p := range append([]Partition{{}}, d.partitions...) {
		major, minor, err := d.Number(p.Slot)
		if err != nil {
			return nil, err
		}
		w.node(p.Name(), unix.S_IFBLK|0o660, major, minor)
	}
	for _, dir := range common.dirs {
		w.dir(path.Join(LentDev, dir))
	}
	for _, all := range []map[string]string{common.links, links} {
		for name, target := range all {
			w.link(name, target)
		}
	}
	if w.err != nil {
		return nil, fmt.Errorf("make a /dev: %w", w.err)
	}
	return m, nil
}

// devWriter makes files below a directory, until the first error.
type devWriter struct {
	fd, owner int
	made      map[string]bool
	err       error
}

func (w *devWriter) dir(name string) {
	if w.made[name] {
		return
	}
	w.made[name] = true
	w.dir(path.Dir(name))
	w.do(name, func() error { return unix.Mkdirat(w.fd, name, 0o755) })
}

func (w *devWriter) node(name string, mode, major, minor uint32) {
	name = path.Join(LentDev, name)
	w.dir(path.Dir(name))
	w.do(name, func() error {
		err := unix.Mknodat(w.fd, name, mode, int(unix.Mkdev(major, minor)))
		if err == nil {
			err = unix.Fchmodat(w.fd, name, mode&0o7777, 0) // the umask has taken some
		}
		return err
	})
}

// link makes a link. Of two of one name the first counts: twins of a label, as udev has
// them too.
func (w *devWriter) link(name, target string) {
	name = path.Join(LentDev, name)
	w.dir(path.Dir(name))
	w.do(name, func() error {
		err := unix.Symlinkat(target, w.fd, name)
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return err
	})
}

// do makes a file, which is the owner's.
func (w *devWriter) do(name string, create func() error) {
	if w.err != nil {
		return
	}
	err := create()
	if err == nil {
		err = unix.Fchownat(w.fd, name, w.owner, w.owner, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		w.err = &os.PathError{Op: "make", Path: name, Err: err}
	}
}
