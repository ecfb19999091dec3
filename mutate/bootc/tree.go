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
	if err := im.s.Checkout(ctx, commit, tree, "--union", "--whiteouts"); err != nil {
		return err
	}
	// A directory that is there keeps its mode, owner and attributes. Those of the layer
	// count, and it has all that it is in.
	if err := im.s.Checkout(ctx, commit, only); err != nil {
		return err
	}
	return errors.Join(im.sameDirectories(), os.RemoveAll(filepath.Join(im.Dir, only)))
}

func (im *importing) sameDirectories() error {
	from, err := os.OpenRoot(filepath.Join(im.Dir, only))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenRoot(filepath.Join(im.Dir, tree))
	if err != nil {
		return err
	}
	defer to.Close()
	return fs.WalkDir(from.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return sameDirectory(from, to, name)
	})
}

// sameDirectory gives a directory the mode, the owner and the attributes of another.
func sameDirectory(from, to *os.Root, name string) error {
	const flags = os.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW
	in, err := from.OpenFile(name, flags, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := to.OpenFile(name, flags, 0)
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
