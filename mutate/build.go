package mutate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/verify"
)

// build is one apply at work.
type build struct {
	*Engine
	plan     *plan
	run      *store.Workspace
	guests   *guests
	commits  *committer
	starting sync.WaitGroup    // of the host
	behind   sync.WaitGroup    // what goes on behind the others
	stop     func()            // ends what is of no use without an image
	ended    error             // how the last guest has, if nothing waited for it
	last     *os.File          // the last layer, perhaps before it has its name
	base     *os.File          // the bytes of the recipe's base
	changes  chan foundChanges // gets one, in time; nil if there was no guest

	// everywhere says that what the identity changes is looked for in all files.
	everywhere bool
	sums       func() (*content.Sums, error) // of the last layer; waits for them
}

// begin gets ready to make what is missing of the plan.
func (e *Engine) begin(ctx context.Context, p *plan) (*build, error) {
	if err := needOstree(p); err != nil {
		return nil, err
	}
	base, err := os.Open(e.Catalog().BaseFile(p.base.Digest))
	if err != nil {
		return nil, err
	}
	run, err := e.Store.Begin(ctx)
	if err != nil {
		return nil, errors.Join(err, base.Close())
	}
	return &build{
		Engine: e, plan: p, run: run, base: base, stop: func() {},
		commits: newCommitter(ctx, e.Catalog()),
		guests:  &guests{Engine: e, run: run, layout: p.layout, overlay: p.commits, fresh: p.reused == 0},
	}, nil
}

// close ends whatever still runs and removes the run's files.
func (b *build) close() error {
	b.starting.Wait() // or the engine could end while its host begins
	b.stop()
	b.behind.Wait()
	b.commits.wait() // its error was returned by finish, unless something failed before that
	var errs []error
	if b.last != nil {
		errs = append(errs, b.last.Close())
	}
	errs = append(errs, b.ended, b.guests.close(), b.run.Close(), b.base.Close())
	return errors.Join(errs...)
}

// build makes the layers that are missing, and of the last the image.
func (b *build) build(ctx context.Context, assertions []verify.Assertion, o ApplyOptions) (*record.Image, error) {
	err := b.layers(ctx)
	var image *record.Image
	if err == nil {
		image, err = b.finish(ctx, assertions, o)
	}
	if err != nil && o.KeepFailed {
		err = errors.Join(err, b.keep(err))
	}
	return image, err
}

// keep gives a lasting name to what failed: the fork as the failing step found
// it, which is the layer before, or the image that is not what it should be.
func (b *build) keep(failed error) error {
	var step *StepError
	var verdict *VerifyError
	var from, what string
	switch {
	case errors.As(failed, &step):
		if err := b.commits.wait(); err != nil {
			return err
		}
		parent := b.plan.ground().key
		if step.Index > 1 {
			parent = b.plan.steps[step.Index-2].key
		}
		from, what = b.Catalog().LayerFile(parent), fmt.Sprintf("the image as it was before step %d", step.Index)
	case errors.As(failed, &verdict):
		from, what = b.imageFile(), "the image that did not pass"
	default:
		return nil
	}
	kept := b.Store.Kept(b.plan.recipe.Name)
	if err := os.Remove(kept); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := reflink.CloneFile(kept, from, 0o600); err != nil {
		return fmt.Errorf("keep the fork: %w", err)
	}
	b.note(fmt.Sprintf("kept %s, until imgmut gc: %s", what, kept))
	return nil
}
