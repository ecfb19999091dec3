package mutate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// Resolve finds the base of a recipe. A file that the store has not seen before
// is imported.
func (e *Engine) Resolve(ctx context.Context, r *recipes.Recipe) (*record.Base, error) {
	b := r.Base
	if b.Path != "" || b.URL != "" {
		base, err := e.importAs(ctx, b, "", false)
		if err != nil {
			err = fmt.Errorf("%s: base: %w", r.BasePlace(), err)
		}
		return base, err
	}
	base, err := e.Catalog().FindBase(b.Name)
	if errors.Is(err, store.ErrNotFound) {
		base, err = e.imageAsBase(ctx, b.Name)
	}
	if errors.Is(err, store.ErrNotFound) {
		_, statErr := os.Stat(filepath.Join(r.Dir, b.Name))
		mend := "imgmut import FILE " + b.Name + " gives a base that name, and imgmut ls lists those there are"
		if near := recipes.Nearest(b.Name, e.names()); near != "" {
			mend = "did you mean " + near + "?"
		}
		if statErr == nil {
			mend = "there is a file of that name beside the recipe: to use it write base: ./" + b.Name
		}
		if lost := e.lostBase(r); lost != "" {
			mend = lost
		}
		err = fault.New(fault.NotFound, mend, "%s: %w", r.BasePlace(), err)
	}
	return base, err
}

// names are those that a recipe's base may have, none if they cannot be told.
func (e *Engine) names() []string {
	bases, err := e.Catalog().Bases()
	if err != nil {
		return nil
	}
	images, err := e.Catalog().Images()
	if err != nil {
		return nil
	}
	var names []string
	for _, b := range bases {
		names = append(names, b.Names...)
	}
	for _, i := range images {
		names = append(names, i.Name)
	}
	return names
}

// imageAsBase lets a recipe build on an image that another recipe made.
func (e *Engine) imageAsBase(ctx context.Context, name string) (*record.Base, error) {
	if _, err := e.Catalog().FindImage(name); err != nil {
		return nil, fmt.Errorf("base %s: %w", name, store.ErrNotFound)
	}
	return e.Import(ctx, recipes.Base{Path: e.Catalog().ImageFile(name), Raw: true}, "")
}
