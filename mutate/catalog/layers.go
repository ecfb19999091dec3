package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

// FindLayer looks a layer up. ok is false if there is none, or if it is older
// than maxAge (0 is any age). One whose record cannot be read is none: it is
// made again.
func (c Catalog) FindLayer(k record.Key, maxAge time.Duration, now time.Time) (rec record.Layer, ok bool, err error) {
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
	return rec, maxAge == 0 || now.Sub(rec.Made) <= maxAge, nil
}

// CommitLayer gives the run's file the name of its key. Until it returns, a
// crash leaves no layer.
func (c Catalog) CommitLayer(ctx context.Context, file string, k record.Key, rec record.Layer) error {
	if err := c.Store.Publish(ctx, file, store.Layers, string(k), rec, nil); err != nil {
		return fmt.Errorf("commit layer: %w", err)
	}
	return nil
}

// Why tells what keeps a layer of this material from being there: "new", or
// what differs from the layer that the same parent has for the same kind of
// step, the newest if there are several.
func (c Catalog) Why(m *record.Material) (string, error) {
	layers, err := list[record.Layer](Catalog{c.Store, func(string) {}}, store.Layers)
	if err != nil {
		return "", err
	}
	var nearest *record.Layer
	for _, rec := range layers {
		if rec.Material.Parent == m.Parent && rec.Material.Kind == m.Kind && (nearest == nil || rec.Made.After(nearest.Made)) {
			nearest = rec
		}
	}
	if nearest == nil {
		return "new", nil
	}
	return m.Difference(&nearest.Material), nil
}
