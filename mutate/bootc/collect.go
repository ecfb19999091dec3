package bootc

import (
	"context"
	"os"
	"path/filepath"
	"strings"
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
	_, err = os.Stat(r.mark())
	something := err == nil
	for kind, prefix := range kinds {
		entries, err := os.ReadDir(filepath.Join(r.Dir, kind))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if name, _ := strings.CutSuffix(e.Name(), ".json"); !kept[prefix+name] {
				something = true
				if err := os.Remove(filepath.Join(r.Dir, kind, e.Name())); err != nil {
					return nil, err
				}
			}
		}
	}
	if !something { // then ostree need not be there either
		return gone, nil
	}
	return gone, r.prune(ctx, kept)
}
