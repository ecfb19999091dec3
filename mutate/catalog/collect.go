package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

// Collected is what a collection removed, or would remove.
type Collected struct {
	Layers []CollectedLayer `json:"layers"`
	Bases  []CollectedBase  `json:"bases"`
	Failed []string         `json:"failed"` // files with what --keep-failed kept
	Freed  int64            `json:"freed"`  // bytes, 0 in a dry run
}

// CollectedLayer is a layer that no image is made of.
type CollectedLayer struct {
	Key  record.Key `json:"key"`
	Name string     `json:"name,omitempty"` // of the step, if it has one
	Kind string     `json:"kind"`
	Base string     `json:"base,omitempty"` // name or digest of the base that its chain begins with, if that is there
	Made time.Time  `json:"made"`
}

// CollectedBase is a base without a name that nothing is made of.
type CollectedBase struct {
	Digest string `json:"digest"`
	OS     string `json:"os"`
	Source string `json:"source"` // the path that it was imported from
}

// Collect removes the layers that no image is made of, bases without a name
// that nothing is made of, and what --keep-failed kept. With dryRun it only
// tells.
func (c Catalog) Collect(ctx context.Context, dryRun bool) (*Collected, error) {
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
	if dryRun {
		r.Failed, err = c.Store.DropKept(true)
		return r, err
	}
	before, err := c.Store.Used(ctx)
	if err != nil {
		return nil, err
	}
	if r.Failed, err = c.Store.DropKept(false); err != nil {
		return nil, err
	}
	if err := c.Store.DropDownloads(); err != nil {
		return nil, err
	}
	for _, l := range r.Layers {
		if err := c.Store.Remove(ctx, store.Layers, string(l.Key)); err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, fmt.Errorf("remove layer %.12s: %w", l.Key, err)
		}
	}
	for _, b := range r.Bases {
		if err := c.Store.Remove(ctx, store.Bases, b.Digest); err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, fmt.Errorf("remove base %.12s: %w", b.Digest, err)
		}
	}
	if err := c.Store.ClearLocks(); err != nil {
		return nil, err
	}
	after, err := c.Store.Used(ctx)
	r.Freed = max(0, before-after)
	return r, err
}

// unneeded lists what nothing needs. If the record of an image cannot be read,
// any base may be the one that it needs, so all bases stay. Layers need not:
// they only save work to an apply, and it finds them by the recipe.
func (c Catalog) unneeded() (*Collected, error) {
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
	bases, err := c.Bases()
	if err != nil {
		return nil, err
	}
	r := &Collected{Layers: []CollectedLayer{}, Bases: []CollectedBase{}} // not missing, for JSON
	called := map[record.Key]string{}                                     // bases, by what layers begin with
	for _, b := range bases {
		called[record.Key(b.Digest)] = fmt.Sprintf("%.12s", b.Digest)
		if len(b.Names) > 0 {
			called[record.Key(b.Digest)] = b.Names[0]
		} else if allRead && !based[b.Digest] {
			r.Bases = append(r.Bases, CollectedBase{Digest: b.Digest, OS: b.Layout.OS, Source: b.Source})
		}
	}
	layers, err := c.layers()
	if err != nil {
		return nil, err
	}
	for k, l := range layers {
		if !needed[k] {
			r.Layers = append(r.Layers, CollectedLayer{
				Key: k, Name: l.Name, Kind: l.Material.Kind, Made: l.Made, Base: called[layers.root(k)],
			})
		}
	}
	slices.SortFunc(r.Layers, func(a, b CollectedLayer) int {
		return cmp.Or(a.Made.Compare(b.Made), cmp.Compare(a.Key, b.Key))
	})
	return r, nil
}

// Layers are the records of all layers, empty where one cannot be read.
func (c Catalog) Layers() (map[record.Key]record.Layer, error) { return c.layers() }

// layerSet are the records of all layers, empty where one cannot be read.
type layerSet map[record.Key]record.Layer

func (c Catalog) layers() (layerSet, error) {
	names, err := c.Store.Names(store.Layers)
	if err != nil {
		return nil, err
	}
	all := layerSet{}
	for _, n := range names {
		var l record.Layer
		err := c.Store.Load(store.Layers, n, &l)
		if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrBadRecord) {
			return nil, err
		}
		all[record.Key(n)] = l
	}
	return all, nil
}

// root is what the chain of a layer begins with: a base's digest, or a layer
// that is gone.
func (all layerSet) root(k record.Key) record.Key {
	for range len(all) + 1 { // a chain of forged records could go round
		l, ok := all[k]
		if !ok {
			break
		}
		k = l.Material.Parent
	}
	return k
}

// Title is how people know the layer.
func (l CollectedLayer) Title() string {
	title := cmp.Or(l.Name, l.Kind, "unreadable")
	if l.Kind != "" && title != l.Kind {
		title += " (" + l.Kind + ")"
	}
	if l.Base != "" {
		title += " on " + l.Base
	}
	return title
}
