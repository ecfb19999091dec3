package refs

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// bootPlaces are the directories of a system of which files are read while it
// boots, as patterns of [path.Match]. A volume for /boot and an EFI system
// partition are read as a whole.
var bootPlaces = []string{
	"boot", "efi", "etc", "usr/local/etc",
	"usr/lib/systemd/system", "usr/lib/systemd/*.d", "usr/lib/systemd/network", "usr/lib/systemd/repart",
	"usr/lib/systemd/system-generators", "usr/local/lib/systemd", "lib/systemd/system",
	"usr/lib/udev/rules.d", "usr/local/lib/udev/rules.d", "lib/udev/rules.d",
	"usr/lib/kernel", "usr/local/lib/kernel", "usr/lib/repart.d", "usr/lib/tmpfiles.d", "usr/lib/bootc",
	"usr/lib/dracut/dracut.conf.d", "usr/share/initramfs-tools/conf.d", "usr/share/initramfs-tools/conf-hooks.d",
	"usr/lib/modprobe.d", "lib/modprobe.d", "usr/lib/modules-load.d", "usr/lib/sysctl.d", "usr/lib/ostree-boot",
	"usr/lib/modules/*/init*", "usr/lib/modules/*/*.efi",
}

// passedOver are directories of links to programs and certificates.
var passedOver = lazyregexp.New(`^etc/(alternatives|ssl/certs|pki)$`)

const (
	maxWalked    = 1 << 18 // files and directories of a volume
	maxInOne     = 1 << 16 // entries of a directory
	maxDirectory = 64      // directories in one another
)

// walked is a file that may be read at boot.
type walked struct {
	name string
	info fs.FileInfo
}

// walker lists what may be read at boot, each file once.
type walker struct {
	Files
	ctx   context.Context
	found []walked
	names []string // of all that is there, and where links lead
	lost  []Unread // directories that cannot be listed
	seen  map[fileNumber]bool
	links linked
}

// fileNumber is what a file has for itself, whatever its names.
type fileNumber struct{ dev, ino uint64 }

// atBoot lists the files of a volume that are read while the system boots.
func (f Files) atBoot(ctx context.Context) (*walker, error) {
	w := &walker{Files: f, ctx: ctx, seen: map[fileNumber]bool{}}
	if f.Whole {
		return w, w.directory(".", 0)
	}
	if err := f.each(ctx, bootPlaces, func(name string) error { return w.visit(name, 0) }); err != nil {
		return w, err
	}
	for _, name := range f.Named {
		if err := w.visit(name, 0); err != nil {
			return w, err
		}
	}
	return w, w.visitStarted()
}

// visit takes a file, or what is in a directory. It follows links.
func (w *walker) visit(name string, depth int) error {
	info, err := fs.Stat(w.FS, name)
	if err != nil {
		return nil // a link that leads nowhere
	}
	return w.take(name, info, depth)
}

// take is visit for what is known of already.
func (w *walker) take(name string, info fs.FileInfo, depth int) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	if !w.first(info) {
		return nil
	}
	switch {
	case info.Mode().IsRegular():
		if w.found = append(w.found, walked{name, info}); len(w.found) > maxWalked {
			return tooMuch("there are more than %d files that may be read at boot, such as %s", maxWalked, name)
		}
		return nil
	case !info.IsDir() || passedOver().MatchString(name):
		return nil
	case depth > maxDirectory:
		return tooMuch("%s lies in more than %d directories", name, maxDirectory)
	}
	return w.directory(name, depth)
}

// first says whether a file was not seen before.
func (w *walker) first(info fs.FileInfo) bool {
	n, ok := numberOf(info)
	if !ok {
		return true
	}
	was := w.seen[n]
	w.seen[n] = true
	return !was
}

func (w *walker) directory(dir string, depth int) error {
	f, err := w.FS.Open(dir)
	if err != nil {
		w.lost = append(w.lost, Unread{File: dir, Why: err.Error()})
		return nil
	}
	defer f.Close()
	entries, err := w.entries(dir, f)
	if err != nil {
		return err
	}
	here, _ := f.(*os.File)
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if w.names = append(w.names, name); len(w.names) > maxWalked {
			return tooMuch("there are more than %d names of what may be read at boot, such as %s", maxWalked, name)
		}
		switch e.Type() {
		case fs.ModeDir, 0:
			if w.links.full(dir, w) {
				return nil
			}
			if info := statIn(here, e); info != nil {
				err = w.take(name, info, depth+1)
			} else {
				err = w.visit(name, depth+1)
			}
		case fs.ModeSymlink:
			err = w.follow(here, name, depth+1)
		} // to open a device may do something
		if err != nil {
			return err
		}
	}
	return nil
}

// statIn looks at what is in a directory by one system call, where a walk down from the
// root takes several: there are thousands of files. It is nil for a link, and where the
// directory is none of the kernel's.
func statIn(dir *os.File, e fs.DirEntry) fs.FileInfo {
	if dir == nil || e.Type()&fs.ModeSymlink != 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil
	}
	return &entryInfo{e.Name(), syscall.Stat_t{Dev: st.Dev, Ino: st.Ino, Mode: st.Mode, Size: st.Size,
		Mtim: syscall.Timespec(st.Mtim), Ctim: syscall.Timespec(st.Ctim)}}
}

// entryInfo is the [fs.FileInfo] of a regular file or directory.
type entryInfo struct {
	name string
	stat syscall.Stat_t
}

func (i *entryInfo) Name() string       { return i.name }
func (i *entryInfo) Size() int64        { return i.stat.Size }
func (i *entryInfo) ModTime() time.Time { return time.Unix(i.stat.Mtim.Unix()) }
func (i *entryInfo) IsDir() bool        { return i.Mode().IsDir() }
func (i *entryInfo) Sys() any           { return &i.stat }
func (i *entryInfo) Mode() fs.FileMode {
	mode := fs.FileMode(i.stat.Mode & 0o777)
	switch i.stat.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		mode |= fs.ModeDir
	case syscall.S_IFREG:
	default:
		mode |= fs.ModeIrregular
	}
	return mode
}

// entries lists a directory, sorted by name.
func (w *walker) entries(dir string, f fs.File) ([]fs.DirEntry, error) {
	unlisted := func(err error) ([]fs.DirEntry, error) {
		w.lost = append(w.lost, Unread{File: dir, Why: err.Error()})
		return nil, nil
	}
	d, ok := f.(fs.ReadDirFile)
	if !ok {
		return unlisted(errors.ErrUnsupported)
	}
	var list []fs.DirEntry
	for {
		some, err := d.ReadDir(maxInOne + 1 - len(list))
		list = append(list, some...)
		if len(list) > maxInOne {
			return nil, tooMuch("the directory %s has more than %d entries", dir, maxInOne)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return unlisted(err)
		}
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return list, nil
}
