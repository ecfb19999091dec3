package bootc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

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

// commit makes the commit of the whole tree, with what bootc wants to find in it. policy
// says that the tree has a policy of SELinux.
func (im *importing) commit(ctx context.Context, policy bool) (commit string, err error) {
	meta := map[string]string{"ostree.manifest-digest": im.Digest}
	for key, b := range map[string][]byte{"ostree.manifest": im.Manifest, "ostree.container.image-config": im.Config} {
		if meta[key], err = argument(b); err != nil {
			return "", err
		}
	}
	c := ostree.Commit{
		Tree: tree, Branch: imageNames + strings.TrimPrefix(im.Digest, "sha256:"), Linked: true, Bootable: true, Policy: policy,
		Metadata: meta, Options: []string{"--no-bindings", "--timestamp=" + stamp(im.Created)},
	}
	if policy {
		// Nothing in a layer has a label, and what counts as linked would get none.
		c.Linked, c.Options = false, append(c.Options, "--link-checkout-speedup")
	}
	return im.s.Commit(ctx, c)
}

// stamp is a time as ostree reads it; of none it is always the same.
func stamp(t time.Time) string {
	if t.Unix() < 0 || t.Year() > 9999 {
		t = time.Unix(0, 0)
	}
	return t.UTC().Format(time.RFC3339)
}

// maxArgument is how long an argument of a program can be (MAX_ARG_STRLEN), with room for
// the option before it.
const maxArgument = 127 << 10

// argument is JSON as an argument of ostree.
func argument(b []byte) (string, error) {
	if len(b) > maxArgument {
		var short bytes.Buffer
		if err := json.Compact(&short, b); err != nil {
			return "", wrong("", "its manifest is none: %w", err)
		}
		b = short.Bytes()
	}
	if len(b) > maxArgument || bytes.IndexByte(b, 0) >= 0 {
		return "", wrong("have fewer layers, or less history, in it",
			"its manifest or configuration has %d KiB, and bootc's metadata no more than %d",
			len(b)>>10, maxArgument>>10)
	}
	return string(b), nil
}

// checkBootable refuses a tree that no boot loader could start: ostree wants one kernel.
func checkBootable(root *os.Root) error {
	const mend = "take an image that is made for bootc; an image of programs is copied into a disk by a recipe's steps"
	dirs, err := fs.ReadDir(root.FS(), "usr/lib/modules")
	if err != nil {
		return wrong(mend, "the container image has no kernel: there is no /usr/lib/modules")
	}
	var kernels []string
	for _, d := range dirs {
		if fi, err := root.Lstat(path.Join("usr/lib/modules", d.Name(), "vmlinuz")); err == nil && fi.Mode().IsRegular() {
			kernels = append(kernels, d.Name())
		}
	}
	switch len(kernels) {
	case 0:
		return wrong(mend, "the container image has no kernel: there is no /usr/lib/modules/*/vmlinuz")
	case 1:
	default:
		return wrong("remove all but one in it", "the container image has %d kernels, and ostree starts one: %s",
			len(kernels), strings.Join(kernels, ", "))
	}
	for name, shown := range map[string]string{"usr/etc": "/etc", "usr/bin": "/usr/bin"} {
		if fi, err := root.Lstat(name); err != nil || !fi.IsDir() {
			return wrong(mend, "the container image has no %s", shown)
		}
	}
	if textOf(root, "usr/lib/os-release") == "" {
		return wrong(mend, "the container image does not say what system it is: it has no /usr/lib/os-release")
	}
	return nil
}

// textOf gives the text of a small file, "" if there is none.
func textOf(root *os.Root, name string) string {
	const most = 64 << 10
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return ""
	}
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return ""
	}
	return string(b)
}
