package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

// FindLayer looks a layer up. ok is false if there is none. A layer whose record
// cannot be read counts as missing, and so is made again.
func (c Catalog) FindLayer(k record.Key) (rec record.Layer, ok bool, err error) {
	err = c.Store.Load(store.Layers, string(k), &rec)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return rec, false, nil
	case errors.Is(err, store.ErrBadRecord):
		c.Note(fmt.Sprintf("%v; %s", err, fault.Mend(err)))
		return record.Layer{}, false, nil
	case err != nil:
		return rec, false, err
	}
	return rec, true, nil
}

// CommitLayer gives the run's file the name of its key. Until it returns, a
// crash leaves no layer.
func (c Catalog) CommitLayer(ctx context.Context, file string, k record.Key, rec record.Layer) error {
	if err := c.Store.Publish(ctx, file, store.Layers, string(k), rec, nil); err != nil {
		return fmt.Errorf("commit layer: %w", err)
	}
	return nil
}
