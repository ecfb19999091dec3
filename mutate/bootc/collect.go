package bootc

import (
	"context"
	"errors"
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
	kept := map[string]bool{} // names of commits
	for _, i := range all {
		if !needed(i.Digest) {
			gone = append(gone, i)
			continue
		}
		kept[imageNames+strings.TrimPrefix(i.Digest, "sha256:")] = true
		for _, l := range i.Layers {
			kept[layerNames+l.Chain] = true
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
	for kind, prefix := range map[string]string{"images": imageNames, "layers": layerNames} {
		entries, err := os.ReadDir(filepath.Join(r.Dir, kind))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if name, _ := strings.CutSuffix(e.Name(), ".json"); !kept[prefix+name] {
				if err := os.Remove(filepath.Join(r.Dir, kind, e.Name())); err != nil {
					return nil, err
				}
			}
		}
	}
	return gone, r.prune(ctx, kept)
}

// prune removes all names of commits but those that are kept, and what no commit with a
// name needs. There may be some of an import that was killed.
func (r *Repository) prune(ctx context.Context, kept map[string]bool) (err error) {
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
	var refs []string
	for _, prefix := range []string{imageNames, layerNames} {
		some, err := list(ctx, s, strings.TrimSuffix(prefix, "/"))
		if err != nil {
			return err
		}
		refs = append(refs, some...)
	}
	refs = slices.DeleteFunc(refs, func(ref string) bool { return kept[ref] })
	for some := range slices.Chunk(refs, 500) {
		if _, err := s.Run(ctx, "drop container images", nil, append([]string{"refs", repo, "--delete"}, some...)...); err != nil {
			return err
		}
	}
	_, err = s.Run(ctx, "remove what no container image needs", nil, "prune", repo, "--refs-only")
	return err
}
