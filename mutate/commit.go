package mutate

import (
	"context"
	"sync"

	"github.com/imgmut/imgmut/mutate/catalog"
	"github.com/imgmut/imgmut/mutate/record"
)

// committer publishes layers in their order, behind the steps. Once one fails
// it publishes no more: a layer whose parent is missing would never be found.
type committer struct {
	queue chan func() error
	ended func() error
	ctx   context.Context
	to    catalog.Catalog
}

func newCommitter(ctx context.Context, to catalog.Catalog) *committer {
	// A layer that is complete is kept even if the apply is interrupted.
	c := &committer{queue: make(chan func() error, 64), ctx: context.WithoutCancel(ctx), to: to}
	done := make(chan error, 1)
	c.ended = sync.OnceValue(func() error {
		close(c.queue)
		return <-done
	})
	go func() {
		var err error
		for commit := range c.queue {
			if err == nil {
				err = commit()
			}
		}
		done <- err
	}()
	return c
}

func (c *committer) add(file string, k record.Key, rec record.Layer) {
	c.queue <- func() error { return c.to.CommitLayer(c.ctx, file, k, rec) }
}

// wait returns when every layer has its name. It may be called again.
func (c *committer) wait() error { return c.ended() }
