package mutate

import (
	"context"
	"errors"

	"github.com/imgmut/imgmut/mutate/deliver"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// targets are where a recipe and its user want the image.
func (e *Engine) targets(r *recipes.Recipe, o ApplyOptions) []deliver.Target {
	var all []deliver.Target
	if r.Register.Machined {
		all = append(all, e.machinedPool())
	}
	if o.Output != "" {
		all = append(all, deliver.File{
			Source: e.deliverFrom(), Path: o.Output,
			Spared: map[string]string{"the base of the recipe": r.Base.Path, "the recipe": r.File},
		})
	}
	return all
}

func (e *Engine) deliverFrom() deliver.Source {
	return deliver.Source{Store: e.Store, Phase: e.phase, Note: e.note, Progress: e.progress}
}

func (e *Engine) machinedPool() deliver.Machined {
	return deliver.Machined{Source: e.deliverFrom(), Host: func(ctx context.Context) (deliver.Host, error) {
		h, err := e.Host(ctx)
		if err != nil {
			return nil, err // h itself would be an interface that holds nil
		}
		return h, nil
	}}
}

// checkTargets finds out before any work what a target would refuse after it.
// One that has the image of that name as it is now will not refuse the next.
func (e *Engine) checkTargets(ctx context.Context, name string, targets []deliver.Target) error {
	i, err := e.Catalog().FindImage(name)
	if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrBadRecord) {
		return err
	}
	for _, t := range targets {
		if err == nil && t.Has(i) {
			continue
		}
		if err := t.Check(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// deliver puts a finished image into its targets, and gives the path by which
// the user asked for it: their own file, or that in the store.
func (e *Engine) deliver(ctx context.Context, i *record.Image, targets []deliver.Target) (path string, err error) {
	path = e.Catalog().ImageFile(i.Name)
	for _, t := range targets {
		if t.Has(i) {
			continue
		}
		at, err := t.Put(ctx, i)
		if err != nil {
			return "", err
		}
		if _, own := t.(deliver.File); own {
			path = at
		}
	}
	return path, nil
}
