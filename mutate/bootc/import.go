package bootc

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/compress"
	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/ostree"
	"github.com/imgmut/imgmut/mutate/tool"
)

// Source is a container image that is to be imported.
type Source struct {
	Digest   string // of Manifest, as sha256:…
	Manifest []byte // JSON
	Config   []byte // JSON
	Labels   map[string]string
	Created  time.Time
	Layers   []SourceLayer // the lowest first
	// Open opens a layer, which has the digest that it should have, compressed or not.
	Open func(ctx context.Context, n int) (io.ReadCloser, error)
}

// SourceLayer names a layer.
type SourceLayer struct {
	Digest string // of the blob, as sha256:…
	DiffID string // of the tar in it, as sha256:…
	Size   int64  // of the blob in bytes, 0 if nobody knows
}

// encapsulated is the label of images that hold a commit of ostree.
const encapsulated = "ostree.final-diffid"

// repo is how ostree's arguments name the repository; work is where an import works.
const (
	repo = "--repo=/sysroot/ostree/repo"
	work = ostree.Work
	tree = work + "/t"
	only = work + "/l"
)

// Names of the commits of images and layers, before the name of the record.
const (
	imageNames = "imgmut/image/"
	layerNames = "imgmut/layer/"
)

// kinds are the directories of records, and what is before the names of their commits.
var kinds = map[string]string{"images": imageNames, "layers": layerNames}

// Import gives the image that a source is, and makes it if it is not there. What it has
// made of one that fails stays for the next time.
func (r *Repository) Import(ctx context.Context, from Source) (_ *Image, err error) {
	if i, err := r.Find(from.Digest); i != nil || err != nil {
		return i, err
	}
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	root, err := mount.Directory(r.Dir, false)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	s, err := ostree.Open(ostree.Options{Root: root})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close(), r.clear()) }()
	im := &importing{Repository: r, Source: from, s: s, made: map[string]Layer{}}
	i, err := im.image(ctx)
	err = full(errors.Join(err, im.keep()))
	if err != nil {
		return nil, err
	}
	return i, r.save("images", strings.TrimPrefix(i.Digest, "sha256:"), i)
}

// full makes an error of a filesystem that is full one of the store, in which all is made
// that an import makes. ostree stops where some hundredths of it are left.
func full(err error) error {
	if err == nil || !strings.Contains(err.Error(), "would be exceeded") && !strings.Contains(err.Error(), "No space left") {
		return err
	}
	return fault.New(fault.Host, "make room with imgmut gc, or use a store on a larger disk with --store", "the store is full: %v", err)
}

// prepare makes the repository, without what an import left that was interrupted.
func (r *Repository) prepare(ctx context.Context) error {
	if err := r.mend(ctx); err != nil {
		return err
	}
	for _, dir := range []string{"", "layers", "images", "ostree"} {
		// It has programs that run as their owner, of strangers.
		if err := os.MkdirAll(filepath.Join(r.Dir, dir), 0o700); err != nil {
			return err
		}
	}
	if err := r.begin(); err != nil {
		return err
	}
	where := filepath.Join(r.Dir, "ostree", "repo")
	if _, err := os.Stat(filepath.Join(where, "objects")); err == nil { // the last that is made
		return nil
	}
	_, err := tool.Run(ctx, tool.Call{Program: "ostree", What: "make a repository of container images",
		Args: []string{"init", "--repo=" + where, "--mode=bare"}})
	return err
}

func (r *Repository) clear() error { return os.RemoveAll(filepath.Join(r.Dir, work)) }

// importing is an import at work.
type importing struct {
	*Repository
	Source
	s    *ostree.Sysroot
	made map[string]Layer // by chain
}

// keep writes down which layers were made, once they are on the disk, and the tree with
// them. That is all of an import at once: to sync each object would take minutes, and
// imports are rare.
func (im *importing) keep() error {
	err := im.written(im.s)
	for chain, l := range im.made {
		if err == nil {
			err = im.save("layers", chain, l)
		}
	}
	return err
}

// image makes the commit of each layer, and the tree of all.
func (im *importing) image(ctx context.Context) (*Image, error) {
	i := &Image{Version: Version, Digest: im.Digest, Encapsulated: im.Labels[encapsulated] != ""}
	if err := os.Mkdir(filepath.Join(im.Dir, work), 0o700); err != nil {
		return nil, err
	}
	chain := ""
	for n, from := range im.Layers {
		chain = chainOf(chain, from.DiffID)
		l, err := im.layer(ctx, n, chain)
		if err == nil {
			err = im.lay(ctx, n, l.Commit)
		}
		if err != nil {
			return nil, fmt.Errorf("layer %d of %d: %w", n+1, len(im.Layers), err)
		}
		l.Digest = from.Digest
		i.Layers = append(i.Layers, l)
	}
	im.Phase("commit the tree of the container image")
	root, err := os.OpenRoot(filepath.Join(im.Dir, tree))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := checkBootable(root); err != nil {
		return nil, err
	}
	policy := im.s.HasPolicy(tree)
	if !policy && textOf(root, "usr/etc/selinux/config") != "" {
		return nil, wrong("have SELINUXTYPE name a policy that is in it, or leave out /etc/selinux/config",
			"the container image has an /etc/selinux/config, and no policy of SELinux that it names: ostree fails on that")
	}
	if list, err := fs.ReadDir(root.FS(), "usr/lib/bootc/kargs.d"); err == nil {
		i.Arguments = len(list) > 0
	}
	i.Composefs = ostree.StartsComposefs(textOf(root, "usr/lib/ostree/prepare-root.conf"))
	i.Commit, err = im.commit(ctx, policy)
	return i, err
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

// chainOf names a layer with all that is below it. A layer alone does not tell what it is
// made of: it may have links to files of the others.
func chainOf(below, diffID string) string {
	sum := sha256.Sum256([]byte(below + " " + diffID))
	return hex.EncodeToString(sum[:])
}

// layer gives the commit of a layer.
func (im *importing) layer(ctx context.Context, n int, chain string) (Layer, error) {
	var known Layer
	err := im.load("layers", chain, &known)
	if err == nil && known.Version == Version && known.Chain == chain && commitName().MatchString(known.Commit) {
		return known, nil
	}
	l := Layer{Version: Version, Chain: chain}
	if err != nil && !errors.Is(err, errNoRecord) {
		return l, err
	}
	in, err := im.Open(ctx, n)
	if err != nil {
		return l, err
	}
	im.Phase(fmt.Sprintf("import layer %d of %d of the container image", n+1, len(im.Layers)))
	l.Commit, l.Left, err = im.commitLayer(ctx, n, in)
	if err = errors.Join(err, in.Close()); err != nil {
		return l, err
	}
	if err := im.name(ctx, l.Commit, layerNames+chain); err != nil {
		return l, err
	}
	im.made[chain] = l
	return l, nil
}

// name gives a commit a name, which keeps it.
func (im *importing) name(ctx context.Context, commit, ref string) error {
	_, err := im.s.Run(ctx, "name a commit", nil, "refs", repo, "--force", "--create="+ref, commit)
	return err
}

// commitLayer makes a commit of a layer, which has proved to be the one that the image's
// configuration names when there is no error.
func (im *importing) commitLayer(ctx context.Context, n int, in io.Reader) (commit string, left Left, err error) {
	lower, err := os.OpenRoot(filepath.Join(im.Dir, tree))
	if errors.Is(err, fs.ErrNotExist) && n == 0 {
		lower, err = nil, nil
	}
	if err != nil {
		return "", left, err
	}
	if lower != nil {
		defer lower.Close()
	}
	filter := LayerFilter{Lower: lower, Scratch: filepath.Join(im.Dir, work), Room: im.Room}
	read, of := int64(0), im.Source.Layers[n]
	in = content.Reader(ctx, in, func(n int) {
		read += int64(n)
		im.Progress(read, max(read, of.Size))
	})
	filtered, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		var err error
		left, err = filter.plain(ctx, in, of.DiffID, out)
		out.CloseWithError(err)
		done <- err
	}()
	commit, err = im.s.Commit(ctx, ostree.Commit{Tar: filtered, Options: []string{"--no-bindings", "--timestamp=" + stamp(time.Time{})}})
	// If ostree was first to end, nobody reads what is still to come.
	filtered.CloseWithError(errGone)
	if filterErr := <-done; filterErr != nil && !errors.Is(filterErr, errGone) {
		return "", left, filterErr
	}
	return commit, left, err
}

var errGone = errors.New("ostree has ended")

// plain filters a layer that may be compressed, and compares the tar in it with its name.
func (f LayerFilter) plain(ctx context.Context, in io.Reader, diffID string, out io.Writer) (left Left, err error) {
	tar, end, err := unpacked(in)
	if err != nil {
		return left, layerError(ctx, err)
	}
	defer end()
	sum := sha256.New()
	summed := io.TeeReader(tar, sum)
	if left, err = f.Copy(ctx, summed, out); err != nil {
		return left, err
	}
	rest := content.Reader(ctx, io.LimitReader(summed, maxBehind), func(int) {})
	if n, err := io.Copy(io.Discard, rest); err != nil || n == maxBehind {
		return left, layerError(ctx, errors.Join(err, errors.New("much comes behind its end")))
	}
	if is := "sha256:" + hex.EncodeToString(sum.Sum(nil)); is != diffID {
		return left, wrong("", "it unpacks to %s, and the image says that it is %s", is, diffID)
	}
	return left, nil
}

// maxBehind is how much may come behind the end of a tar, of nothing, to fill up a tape.
const maxBehind = 64 << 20

// unpacked gives a tar that may be compressed, in the ways that layers are. What begins
// otherwise is a tar, or is found to be none.
func unpacked(in io.Reader) (tar io.Reader, end func(), err error) {
	b := bufio.NewReaderSize(in, 1<<20)
	head, err := b.Peek(compress.HeadSize)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	m := compress.Of(head)
	if m.Name != "gzip" && m.Name != "zstd" {
		return b, func() {}, nil
	}
	z, err := m.NewReader(b)
	if err != nil {
		return nil, nil, err
	}
	return z, func() { _ = z.Close() }, nil
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
