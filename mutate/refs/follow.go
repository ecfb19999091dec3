package refs

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// A link below a place that is read at boot stands for what it leads to, wherever that
// lies: an initrd in /srv, the udev rules of /opt. Anybody can make one to anything, so
// there are bounds to what is looked into for it.
const (
	maxLinked = 1 << 30 // bytes of one file: more is no initrd, but a disk or a database
	// maxThrough is how many files and directories all directories have together to
	// which links lead.
	maxThrough = 1 << 14
)

var (
	// systemLinks are where systems themselves have links in place of directories, as
	// NixOS has its whole /etc.
	systemLinks = lazyregexp.New(`^(boot|efi|etc/static|etc/systemd|lib|usr/lib)(/|$)`)
	// wide are the directories that hold all that a system has, and so nothing that is
	// read as a part of another directory.
	wide = strings.Fields(`. bin dev home lib lib32 lib64 media mnt nix nix/store opt ostree proc root run sbin srv sys sysroot tmp usr
		usr/bin usr/include usr/lib usr/lib32 usr/lib64 usr/libexec usr/local usr/local/bin usr/sbin usr/share usr/src var
		var/cache var/lib var/log var/opt var/spool`)
)

// linked is what a walker knows of the directories to which links lead.
type linked struct {
	inside int // in how many of them it is
	count  int // what was in them
	told   bool
	wide   map[fileNumber]bool // nil until it is asked for
}

// full says whether there was too much in them already, which it tells once.
func (l *linked) full(dir string, w *walker) bool {
	if l.inside == 0 {
		return false
	}
	if l.count++; l.count <= maxThrough {
		return false
	}
	if !l.told {
		l.told = true
		w.lost = append(w.lost, Unread{File: dir, Why: fmt.Sprintf("links lead to directories with more than %d files", maxThrough)})
	}
	return true
}

// follow notes where a link in a directory leads, and takes what is there. dir is nil where
// it is none of the kernel's.
func (w *walker) follow(dir *os.File, name string, depth int) error {
	if target, ok := w.target(dir, name); ok {
		w.names = append(w.names, name+"\x00"+target)
		if strings.HasPrefix(target, "/dev/") || strings.HasPrefix(target, "/proc/") {
			return nil
		}
	}
	info, err := fs.Stat(w.FS, name)
	if err != nil {
		return nil // it leads nowhere
	}
	switch {
	case info.Mode().IsRegular() && info.Size() > maxLinked:
		w.lost = append(w.lost, Unread{File: name, Why: fmt.Sprintf("it leads to a file of %d bytes", info.Size())})
		return nil
	case info.IsDir() && !w.Whole && w.isWide(info):
		return nil
	case info.IsDir() && !w.Whole && !systemLinks().MatchString(name):
		w.links.inside++
		defer func() { w.links.inside-- }()
	}
	return w.take(name, info, depth)
}

// target is where a link leads: by one system call where the kernel has the directory, as
// in statIn.
func (w *walker) target(dir *os.File, name string) (string, bool) {
	if dir != nil {
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(dir.Fd()), path.Base(name), target)
		return string(target[:max(n, 0)]), err == nil
	}
	target, err := fs.ReadLink(w.FS, name)
	return target, err == nil
}

// isWide says whether a directory is one of those that hold all that a system has.
func (w *walker) isWide(info fs.FileInfo) bool {
	if w.links.wide == nil {
		w.links.wide = map[fileNumber]bool{}
		for _, dir := range wide {
			if is, err := fs.Stat(w.FS, dir); err == nil {
				if n, ok := numberOf(is); ok {
					w.links.wide[n] = true
				}
			}
		}
	}
	n, ok := numberOf(info)
	return ok && w.links.wide[n]
}

func numberOf(info fs.FileInfo) (n fileNumber, ok bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return n, false
	}
	return fileNumber{s.Dev, s.Ino}, true
}
