package catalog

import (
	"context"
	"errors"

	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

// Removed is what a removal did.
type Removed struct {
	Images []string `json:"images"`
	Bases  []string `json:"bases"`
	Layers []string `json:"layers"`
	Failed []string `json:"failed"` // files, of what failed
}

// NothingRemoved has lists that are empty and not missing, for JSON.
func NothingRemoved() *Removed {
	return &Removed{Images: []string{}, Bases: []string{}, Layers: []string{}, Failed: []string{}}
}

// Collect removes the layers that no image is made of, bases without a name that
// nothing is made of, and what was kept of failures. With dryRun it only tells.
func (c Catalog) Collect(ctx context.Context, dryRun bool) (*Removed, error) {
	release, err := c.Exclusive(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := c.Store.Sweep(ctx); err != nil {
		return nil, err
	}
	r, err := c.unneeded()
	if err != nil {
		return nil, err
	}
	if r.Failed, err = c.Store.DropKept(dryRun); err != nil || dryRun {
		return r, err
	}
	if err := c.Store.ClearLocks(); err != nil {
		return nil, err
	}
	for kind, names := range map[store.Kind][]string{store.Layers: r.Layers, store.Bases: r.Bases} {
		for _, n := range names {
			if err := c.Store.Remove(ctx, kind, n); err != nil && !errors.Is(err, store.ErrNotFound) {
				return nil, err
			}
		}
	}
	return r, nil
}

// unneeded lists what nothing needs. An image whose record cannot be read may
// need any base, but no layer: layers are for the next apply, which would not
// find them by that record either.
func (c Catalog) unneeded() (*Removed, error) {
	images, err := c.Images()
	if err != nil {
		return nil, err
	}
	names, err := c.Store.Names(store.Images)
	if err != nil {
		return nil, err
	}
	allRead := len(images) == len(names)
	needed, based := map[record.Key]bool{}, map[string]bool{}
	for _, i := range images {
		based[i.Base] = true
		for _, k := range i.Keys {
			needed[k] = true
		}
	}
	r := NothingRemoved()
	keys, err := c.Store.Names(store.Layers)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if !needed[record.Key(k)] {
			r.Layers = append(r.Layers, k)
		}
	}
	bases, err := c.Bases()
	if err != nil {
		return nil, err
	}
	for _, b := range bases {
		if allRead && len(b.Names) == 0 && !based[b.Digest] {
			r.Bases = append(r.Bases, b.Digest)
		}
	}
	return r, nil
}
