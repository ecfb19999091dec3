package mutate

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// checkOwner refuses to replace the image of another recipe: two were given one
// name by mistake, and the image of the first would be gone. The same recipe in
// another place, as in a fresh clone, is not another, nor is one that was moved.
func (e *Engine) checkOwner(r *recipes.Recipe) error {
	i, err := e.Catalog().FindImage(r.Name)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrBadRecord) {
		return nil
	}
	if err != nil {
		return err
	}
	if !filepath.IsAbs(i.Recipe) || i.RecipeSum == r.Digest {
		return nil
	}
	its, err := os.Stat(i.Recipe)
	if err != nil { // it was moved, or is gone
		return nil
	}
	if ours, err := os.Stat(r.Path); err == nil && os.SameFile(ours, its) {
		return nil
	}
	return fault.New(fault.Usage, "give one of the recipes another name, or say --replace",
		"name %s: the image of another recipe has it: %s", r.Name, i.Recipe)
}
