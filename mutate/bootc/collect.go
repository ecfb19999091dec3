package bootc

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/ostree"
)

// Collect removes all images but those that are needed, by digest, and the layers that
// none of these has. Nobody may use the repository. Without dryRun it gives the room back.
func (r *Repository) Collect(ctx context.Context, needed func(digest string) bool, dryRun bool) (gone []*Image, err error) {
	all, err := r.Images()
	if err != nil {
		return nil, err
	}
	layers := map[string]bool{}
	for _, i := range all {
		if !needed(i.Digest) {
			gone = append(gone, i)
			continue
		}
		for _, l := range i.Layers {
			layers[l.Chain] = true
		}
	}
	if dryRun {
		return gone, nil
	}
	if len(gone) == len(all) { // and so is what a failed import has left
		return gone, os.RemoveAll(r.Dir)
	}
	if err := r.clear(); err != nil {
		return nil, err
	}
	var refs []string
	for _, i := range gone {
		name := strings.TrimPrefix(i.Digest, "sha256:")
		refs = append(refs, "imgmut/image/"+name)
		if err := os.Remove(filepath.Join(r.Dir, "images", name+".json")); err != nil {
			return nil, err
		}
	}
	entries, err := os.ReadDir(filepath.Join(r.Dir, "layers"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		chain, _ := strings.CutSuffix(e.Name(), ".json")
		if layers[chain] {
			continue
		}
		refs = append(refs, "imgmut/layer/"+chain)
		if err := os.Remove(filepath.Join(r.Dir, "layers", e.Name())); err != nil {
			return nil, err
		}
	}
	return gone, r.prune(ctx, refs)
}

// prune removes names of commits, and what no commit with a name needs.
func (r *Repository) prune(ctx context.Context, refs []string) (err error) {
	root, err := mount.Directory(r.Dir, false)
	if err != nil {
		return err
	}
	defer root.Close()
	s, err := ostree.Open(ostree.Options{Root: root})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for some := range slices.Chunk(refs, 500) {
		if _, err := s.Run(ctx, "drop container images", nil, append([]string{"refs", repo, "--delete"}, some...)...); err != nil {
			return err
		}
	}
	_, err = s.Run(ctx, "remove what no container image needs", nil, "prune", repo, "--refs-only")
	return err
}
