package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/mount"
)

// Where the kernel has no vfat, a step that works on how the image starts gets a copy of
// each FAT volume, in memory, which the table of mounts shows as the volume. What the
// step changed in it is written to the volume afterwards, and nothing else of that.
//
// What is in the copy then was made by the step, and may be changed by an accomplice of it
// while it is read (see package agent): it is opened through an [os.Root], and never
// beyond what the volume could hold.

// maxStaged bounds what is copied of a volume, in bytes: it is the machine's memory.
const maxStaged = 1 << 30

// maxFATPath is how long the path of a file may be, in bytes. Systems that know FAT know
// none of more than 260 characters.
const maxFATPath = 1024

// lentFAT is such a copy.
type lentFAT struct {
	image  *Image
	owner  int
	volume Volume
	at     string
	copy   *os.File // the mount
	tree   *Tree    // what it is a copy of, nil before the first
	// unreadable says that the volume is damaged, or too large.
	unreadable bool
	had        map[string]staged
}

// staged is what a file of the copy was when it was made.
type staged struct {
	dir   bool
	inode uint64
	size  int64
	ctime syscall.Timespec
}

// name is what it is called among what is lent.
func (f *lentFAT) name() string { return fmt.Sprintf("fat%d", f.volume.Slot) }

func (l *Lent) newFAT(m Mounted) (*lentFAT, error) {
	v, _ := l.image.Layout.Slot(m.Slot)
	source := "/dev/" + mount.Partition{Slot: v.Slot}.Name() // what boot loaders look at
	owner := int(l.users.Shift)
	copied, err := mount.NewTmpfs(source, unix.MOUNT_ATTR_NODEV, "mode=0755", fmt.Sprintf("size=%d", min(max(v.Size, 1<<20), maxStaged)),
		fmt.Sprintf("uid=%d", owner), fmt.Sprintf("gid=%d", owner))
	if err != nil {
		return nil, fmt.Errorf("make room for a copy of %s: %w", v, err)
	}
	return &lentFAT{image: l.image, owner: owner, volume: v, at: m.Mountpoint, copy: copied}, nil
}

// root opens the directory of the copy.
func (f *lentFAT) root() (*os.Root, error) {
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", f.copy.Fd()))
}

// stage makes the copy, unless it is one.
func (f *lentFAT) stage(ctx context.Context) (err error) {
	tree, err := f.image.OpenFAT(f.volume)
	if err != nil || tree == f.tree {
		return err
	}
	root, err := f.root()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := empty(root); err != nil {
		return err
	}
	f.tree, f.had = nil, map[string]staged{}
	left := int64(maxStaged)
	err = fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil || name == "." {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if left -= fi.Size(); left < 0 || len(f.had) > maxStagedFiles {
			return fault.New(fault.Image, "build on a machine whose kernel has vfat", "%s holds more than %d MiB, or %d files",
				f.volume, maxStaged>>20, maxStagedFiles)
		}
		return f.copyOut(tree, root, name, fi)
	})
	if err != nil {
		return err
	}
	f.tree = tree
	return nil
}

// maxStagedFiles bounds how many there are.
const maxStagedFiles = 65536

func (f *lentFAT) copyOut(tree *Tree, root *os.Root, name string, fi fs.FileInfo) error {
	if fi.IsDir() {
		if err := root.Mkdir(name, 0o755); err != nil {
			return err
		}
	} else if err := copyFile(root, name, func(w io.Writer) error {
		in, err := tree.Open(name)
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = io.Copy(w, in)
		return err
	}); err != nil {
		return err
	}
	err := errors.Join(root.Chown(name, f.owner, f.owner), root.Chtimes(name, fi.ModTime(), fi.ModTime()))
	if err != nil {
		return err
	}
	is, err := root.Lstat(name)
	if err == nil {
		f.had[name] = stagedAs(is)
	}
	return err
}

func copyFile(root *os.Root, name string, write func(io.Writer) error) (err error) {
	out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	return write(out)
}

// empty removes all that is in a directory.
func empty(root *os.Root) error {
	list, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := root.RemoveAll(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

func stagedAs(fi fs.FileInfo) staged {
	if fi.IsDir() {
		return staged{dir: true} // what is in it is told by itself
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return staged{}
	}
	return staged{inode: st.Ino, size: fi.Size(), ctime: st.Ctim}
}

// unstage writes to the volume what has changed.
func (f *lentFAT) unstage(ctx context.Context, scratch string) (err error) {
	root, err := f.root()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := f.dropSeed(root); err != nil {
		return err
	}
	changed, gone, err := f.changes(ctx, root)
	if err != nil || len(changed)+len(gone) == 0 {
		return err
	}
	dir, err := os.MkdirTemp(scratch, "fat-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	left := f.volume.Size
	for _, name := range changed {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := bring(root, name, filepath.Join(dir, name), &left); err != nil {
			return err
		}
	}
	f.tree = nil // the next step gets a new copy
	if err := f.image.removeFAT(ctx, f.volume, gone); err != nil {
		return err
	}
	if len(changed) == 0 {
		return nil
	}
	return f.image.FillFAT(ctx, f.volume, dir)
}

// changes lists the files and directories that are new, or others than before, and those
// that are gone, each after what is in it. The case of letters is no part of a name.
func (f *lentFAT) changes(ctx context.Context, root *os.Root) (changed, gone []string, err error) {
	twins := map[string]string{}
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		// Before it is looked into: to open what is in a deep directory takes as many calls.
		if len(name) > maxFATPath {
			return fault.New(fault.Step, "", "%s: no program finds what lies that deep in a FAT volume", path.Join(f.at, name[:64])+"…")
		}
		if len(twins) > maxStagedFiles {
			return fmt.Errorf("there are more than %d files: %w", maxStagedFiles, syscall.ENOSPC)
		}
		if !e.IsDir() && !e.Type().IsRegular() {
			return fault.New(fault.Step, "", "%s: a FAT volume has files and directories only", path.Join(f.at, name))
		}
		fold := strings.ToLower(name)
		if twin, ok := twins[fold]; ok {
			return fault.New(fault.Step, "", "%s: FAT does not tell it from %s", path.Join(f.at, name), path.Join(f.at, twin))
		}
		twins[fold] = name
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if is := stagedAs(fi); f.had[name] != is {
			changed = append(changed, name)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for name, was := range f.had {
		twin, there := twins[strings.ToLower(name)]
		if !there || was.dir != isDirIn(root, twin) {
			gone = append(gone, name)
		}
	}
	slices.SortFunc(gone, func(a, b string) int { return strings.Compare(b, a) })
	return changed, gone, nil
}

func isDirIn(root *os.Root, name string) bool {
	fi, err := root.Lstat(name)
	return err == nil && fi.IsDir()
}

// bring copies a file of the copy to the host, of no more than left bytes.
func bring(root *os.Root, name, to string, left *int64) (err error) {
	in, err := root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	if fi.IsDir() {
		return os.MkdirAll(to, 0o700)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(in, *left+1))
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if *left -= n; *left < 0 {
		return fmt.Errorf("%s: %w", name, syscall.ENOSPC)
	}
	return os.Chtimes(to, time.Time{}, fi.ModTime())
}
