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
	end   func() // publishes what is queued, and no more
	ctx   context.Context
	to    catalog.Catalog

	mu  sync.Mutex
	err error // the first failure
}

func newCommitter(ctx context.Context, to catalog.Catalog) *committer {
	// A layer that is complete is kept even if the apply is interrupted.
	c := &committer{queue: make(chan func() error, 64), ctx: context.WithoutCancel(ctx), to: to}
	done := make(chan struct{})
	c.end = sync.OnceFunc(func() {
		close(c.queue)
		<-done
	})
	go func() {
		defer close(done)
		for commit := range c.queue {
			if c.failed() != nil {
				continue
			}
			if err := commit(); err != nil {
				c.mu.Lock()
				c.err = err
				c.mu.Unlock()
			}
		}
	}()
	return c
}

func (c *committer) add(file string, k record.Key, rec record.Layer) {
	c.queue <- func() error { return c.to.CommitLayer(c.ctx, file, k, rec) }
}

// failed is what went wrong so far: no layer that is still added will be kept.
func (c *committer) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// wait returns when every layer has its name. It may be called again.
func (c *committer) wait() error {
	c.end()
	return c.failed()
}
