package mutate

import (
	"context"
	"encoding/json"

	"github.com/imgmut/imgmut/mutate/catalog"
	"github.com/imgmut/imgmut/mutate/record"
)

// Collected is what a collection removed, or would remove.
type Collected struct {
	*catalog.Collected
	// Containers are the container images that no layer is made of, by the digests of their
	// manifests.
	Containers []string `json:"containers"`
}

// Collect removes what no image needs, of the objects in the store and of the container
// images. With dryRun it only tells.
func (e *Engine) Collect(ctx context.Context, dryRun bool) (*Collected, error) {
	c := &Collected{Containers: []string{}} // not missing, for JSON
	var err error
	if c.Collected, err = e.Catalog().Collect(ctx, dryRun); err != nil {
		return nil, err
	}
	release, err := e.Catalog().Exclusive(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	// Those that a dry run has told of are there still. Of a real one they are gone, and who
	// had the store between the two may have made one of them anew.
	var going []catalog.CollectedLayer
	if dryRun {
		going = c.Layers
	}
	needed, err := e.neededContainers(going)
	if err != nil {
		return nil, err
	}
	before, err := e.Store.Used(ctx)
	if err != nil {
		return nil, err
	}
	gone, err := e.containers(ctx).Collect(ctx, needed, dryRun)
	for _, i := range gone {
		c.Containers = append(c.Containers, i.Digest)
	}
	if err != nil || dryRun {
		return c, err
	}
	after, err := e.Store.Used(ctx)
	c.Freed += max(0, before-after)
	return c, err
}

// neededContainers are those of which there are layers, but for layers that go.
func (e *Engine) neededContainers(going []catalog.CollectedLayer) (func(digest string) bool, error) {
	layers, err := e.Catalog().Layers()
	if err != nil {
		return nil, err
	}
	for _, l := range going {
		delete(layers, l.Key)
	}
	needed := map[string]bool{}
	for _, l := range layers {
		var of becomes
		if l.Material.Kind == record.ContainerKind && json.Unmarshal(l.Material.Options, &of) == nil {
			needed[of.Image] = true
		}
	}
	return func(digest string) bool { return needed[digest] }, nil
}
