package mutate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/imgmut/imgmut/mutate/catalog"
	"github.com/imgmut/imgmut/mutate/fork"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/verify"
)

// build is one apply at work.
type build struct {
	*Engine
	plan    *plan
	run     *store.Run
	guests  *guests
	commits *committer
	last    *os.File // the last layer, perhaps before it has its name
}

// begin gets ready to make what is missing of the plan.
func (e *Engine) begin(ctx context.Context, p *plan) (*build, error) {
	run, err := e.Store.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return &build{
		Engine: e, plan: p, run: run,
		commits: newCommitter(ctx, e.Catalog()), guests: &guests{Engine: e, run: run, layout: &p.base.Layout},
	}, nil
}

// claim takes a lock on every layer that is missing, so that no two applies make
// the same one at once: the second finds it made when it
// gets the lock. Locks are taken in the order of the chain, and chains that
// share a layer share all before it, so no two wait for each other.
func (e *Engine) claim(ctx context.Context, p *plan, o ApplyOptions) (unlock func(), err error) {
	var held []func()
	unlock = func() {
		for _, u := range held {
			u()
		}
	}
	waited := false
	take := func(name string) error {
		u, ok, err := e.Store.TryLock(name)
		if err == nil && !ok {
			if !waited {
				e.note("another imgmut makes the same; waiting for it")
			}
			waited = true
			u, err = e.Store.Lock(ctx, name)
		}
		if err == nil {
			held = append(held, u)
		}
		return err
	}
	for _, l := range p.steps[p.reused:] {
		if err := take("layer-" + string(l.key)); err != nil {
			unlock()
			return nil, err
		}
	}
	if waited { // much may be there now
		if err := e.longestPrefix(p, o); err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

// close ends whatever still runs and removes the run's files.
func (b *build) close() error {
	b.commits.wait() // if it failed, finish has said so, or something before it failed
	var errs []error
	if b.last != nil {
		errs = append(errs, b.last.Close())
	}
	errs = append(errs, b.guests.close(), b.run.Close())
	return errors.Join(errs...)
}

// build makes the layers that are missing, and of the last the image.
func (b *build) build(ctx context.Context, assertions []verify.Assertion, o ApplyOptions) (*record.Image, error) {
	err := b.layers(ctx)
	var image *record.Image
	if err == nil {
		image, err = b.finish(ctx, assertions)
	}
	if err != nil && o.KeepFailed {
		err = errors.Join(err, b.keep(err))
	}
	return image, err
}

// layers makes the layers that are missing, all in one guest.
func (b *build) layers(ctx context.Context) (err error) {
	p := b.plan
	if !p.ready || p.reused < len(p.steps) {
		if err := b.needSpace(0); err != nil {
			return err
		}
		if p.reused < len(p.steps) {
			go b.Host(ctx) // it takes as long to start as all until it is needed
		}
		work := b.run.Path("work.raw")
		if err := b.fork(ctx, work); err != nil {
			return err
		}
		if p.reused < len(p.steps) {
			if err := b.runSteps(ctx, work); err != nil {
				return err
			}
		}
	}
	if b.last == nil {
		b.last, err = os.Open(b.Catalog().LayerFile(p.last()))
	}
	return err
}

// fork makes the file that the guest works on: a fork of the last layer there
// is, or of the base, and in that case the layer "prepare" first.
func (b *build) fork(ctx context.Context, work string) error {
	p := b.plan
	if !p.ready {
		if err := reflink.CloneFile(work, b.Catalog().BaseFile(p.base.Digest), 0o600); err != nil {
			return err
		}
		if err := fork.Prepare(work, &p.base.Layout); err != nil {
			return err
		}
		made := b.run.Path("prepare.raw")
		if err := reflink.CloneFile(made, work, 0o600); err != nil {
			return err
		}
		// Whoever makes it makes the same, so it is as old as its base: layers
		// above it fit each other, whichever of several is kept.
		p.prepare.record = record.Layer{Material: p.prepare.material, Made: p.base.Imported, Settled: true}
		p.ready = true
		return b.Catalog().CommitLayer(ctx, made, p.prepare.key, p.prepare.record)
	}
	from := p.prepare.key
	if p.reused > 0 {
		from = p.steps[p.reused-1].key
	}
	return reflink.CloneFile(work, b.Catalog().LayerFile(from), 0o600)
}

// runSteps runs the steps that are left and makes a layer after each.
func (b *build) runSteps(ctx context.Context, work string) error {
	p := b.plan
	network := slices.ContainsFunc(p.steps[p.reused:], func(l stepLink) bool { return l.material.Network })
	g, err := b.guests.start(ctx, work, false, network)
	if err != nil {
		return err
	}
	parent := p.prepare.record
	if p.reused > 0 {
		parent = p.steps[p.reused-1].record
	}
	for i := p.reused; i < len(p.steps); i++ {
		l := &p.steps[i]
		started := time.Now()
		b.Events(Event{Type: EventStart, Step: i + 1, Steps: len(p.steps), Name: l.title(), Kind: l.spec.Kind})
		lines := &lineWriter{emit: func(line string) { b.Events(Event{Type: EventOutput, Step: i + 1, Name: l.title(), Text: line}) }}
		err := b.step(ctx, g, l, lines)
		lines.flush()
		if err == nil {
			l.record = record.Layer{Material: l.material, Name: l.spec.Name, Made: b.Now().UTC(), ParentMade: parent.Made, Took: time.Since(started)}
			err = b.seal(g, work, i)
		}
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			b.Events(Event{Type: EventFailed, Step: i + 1, Steps: len(p.steps), Name: l.title(), Kind: l.spec.Kind, Took: time.Since(started)})
			return &StepError{Index: i + 1, Name: l.title(), Kind: l.spec.Kind, Network: l.material.Network, Tail: lines.tail(), Err: err}
		}
		parent = l.record
		b.Events(Event{Type: EventDone, Step: i + 1, Steps: len(p.steps), Name: l.title(), Kind: l.spec.Kind, Took: time.Since(started)})
	}
	return nil
}

// step runs one step.
func (b *build) step(ctx context.Context, g *guest.Guest, l *stepLink, out *lineWriter) error {
	if err := b.needSpace(0); err != nil {
		return err
	}
	scoped := &scopedGuest{Guest: g, env: l.spec.Env, network: l.material.Network, out: out,
		timeout: l.spec.Timeout, deadline: time.Now().Add(l.spec.Timeout)}
	if err := l.decoded.Value.Apply(ctx, scoped, b.plan.source); err != nil {
		// A full store shows in a guest as anything: lost writes, I/O errors, a
		// filesystem that turned read-only. Say what it really was.
		if lost := g.Sync(); errors.Is(lost, guest.ErrLostWrites) {
			err = fmt.Errorf("%w: %w", lost, err)
		}
		return err
	}
	return nil
}

// seal clones the fork as it is after step i. Making the clone durable and
// giving it its name goes on behind the next step.
func (b *build) seal(g *guest.Guest, work string, i int) error {
	l := &b.plan.steps[i]
	file := b.run.Path(string(l.key) + ".raw")
	clone := func() error { return reflink.CloneFile(file, work, 0o600) }
	last := i == len(b.plan.steps)-1
	var err error
	if last {
		l.record.Settled = true
		err = b.cloneSettled(g, clone)
	} else {
		err = g.Snapshot(clone)
	}
	if err != nil {
		return err
	}
	if last {
		if b.last, err = os.Open(file); err != nil {
			return err
		}
	}
	b.commits.add(file, l.key, l.record)
	return nil
}

// cloneSettled is a snapshot of a guest that has nothing more to do. It ends
// while the image is being finished.
func (b *build) cloneSettled(g *guest.Guest, clone func() error) error {
	if err := g.Settle(); err != nil {
		return err
	}
	if err := clone(); err != nil {
		return err
	}
	b.guests.stopLater(g)
	return nil
}

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
		parent := b.plan.prepare.key
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
