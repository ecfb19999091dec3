package bootc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

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
