package bootc

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/ostree"
)

// lay lays a layer over the tree of those below.
func (im *importing) lay(ctx context.Context, n int, commit string) error {
	if n == 0 {
		return im.s.Checkout(ctx, commit, tree, "--whiteouts")
	}
	// By itself it shows which directories it has. Where the tree has a link in place of one,
	// ostree would write to where that leads, and a link may lead out of the tree.
	if err := im.s.Checkout(ctx, commit, only); err != nil {
		return err
	}
	if err := im.eachDirectory(ctx, giveWay); err != nil {
		return err
	}
	if err := im.s.Checkout(ctx, commit, tree, "--union", "--whiteouts"); err != nil {
		return err
	}
	// A directory that is there keeps its mode, owner and attributes. Those of the layer
	// count, and it has all that it is in.
	return errors.Join(im.eachDirectory(ctx, sameDirectory), os.RemoveAll(filepath.Join(im.Dir, only)))
}

// eachDirectory visits the directories of the layer, those above before those below. from is
// the layer and to the tree.
func (im *importing) eachDirectory(ctx context.Context, visit func(from, to *os.File, name string) error) error {
	from, err := os.Open(filepath.Join(im.Dir, only))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Open(filepath.Join(im.Dir, tree))
	if err != nil {
		return err
	}
	defer to.Close()
	root, err := os.OpenRoot(from.Name())
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil || !e.IsDir() {
			return err
		}
		return visit(from, to, name)
	})
}

// giveWay removes what the tree has in place of a directory of the layer: a link, a file.
func giveWay(_, to *os.File, name string) error {
	if name == "." {
		return nil
	}
	in, err := ostree.OpenAt(to, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	var st unix.Stat_t
	err = unix.Fstatat(int(in.Fd()), path.Base(name), &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == unix.ENOENT, err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return nil
	case err == nil:
		err = unix.Unlinkat(int(in.Fd()), path.Base(name), 0)
	}
	if err != nil {
		return &os.PathError{Op: "make way for", Path: name, Err: err}
	}
	return nil
}

// sameDirectory gives a directory the mode, the owner and the attributes of another.
func sameDirectory(from, to *os.File, name string) error {
	in, err := ostree.OpenAt(from, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := ostree.OpenAt(to, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer out.Close()
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	st := fi.Sys().(*syscall.Stat_t)
	if err := out.Chown(int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(int(out.Fd()), st.Mode&0o7777); err != nil {
		return err
	}
	want, err := readXattrs(in)
	if err != nil {
		return err
	}
	has, err := readXattrs(out)
	if err != nil {
		return err
	}
	for key := range has {
		if _, ok := want[key]; !ok {
			if err := unix.Fremovexattr(int(out.Fd()), key); err != nil {
				return err
			}
		}
	}
	for key, value := range want {
		if has[key] != value {
			if err := unix.Fsetxattr(int(out.Fd()), key, []byte(value), 0); err != nil {
				return err
			}
		}
	}
	return nil
}
