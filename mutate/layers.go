package mutate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/recipes"
)

// layers makes the layers that are missing, all in one guest.
func (b *build) layers(ctx context.Context) (err error) {
	p := b.plan
	if !p.hasGround() || p.reused < len(p.steps) {
		if err := b.needSpace(ctx, 0); err != nil {
			return err
		}
		if p.reused < len(p.steps) {
			b.starting.Go(func() { b.Host(ctx) }) // at the same time as the fork: both take about as long
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
// is, or of the base, and in that case the layers that steps stand on first.
func (b *build) fork(ctx context.Context, work string) error {
	p := b.plan
	from := b.Catalog().BaseFile(p.base.Digest)
	switch {
	case p.reused > 0:
		from = b.Catalog().LayerFile(p.steps[p.reused-1].key)
	case p.hasGround():
		from = b.Catalog().LayerFile(p.ground().key)
	case p.ready:
		from = b.Catalog().LayerFile(p.prepare.key)
	}
	if err := reflink.CloneFile(work, from, 0o600); err != nil {
		return err
	}
	if !p.ready {
		if err := b.prepare(ctx, work); err != nil {
			return err
		}
	}
	if !p.hasGround() {
		if err := b.becomeContainer(ctx, work); err != nil {
			return err
		}
		p.layout = p.layout.With(p.bootc.record.Mounts)
		b.guests.layout = p.layout
	}
	return nil
}

// prepare makes the first layer, of a fork of the base.
func (b *build) prepare(ctx context.Context, work string) error {
	p := b.plan
	if err := b.grow(ctx, work); err != nil {
		return err
	}
	made := b.run.Path("prepare.raw")
	if err := reflink.CloneFile(made, work, 0o600); err != nil {
		return err
	}
	// What is made here is always the same, so it takes the base's time and
	// not the clock's: layers built on any copy of it accept it as parent.
	p.prepare.record = record.Layer{Material: p.prepare.material, Made: p.base.Imported, Settled: true}
	p.ready = true
	return b.Catalog().CommitLayer(ctx, made, p.prepare.key, p.prepare.record)
}

// runSteps runs the steps that are left and makes a layer after each.
func (b *build) runSteps(ctx context.Context, work string) error {
	p := b.plan
	want := guest.Spec{
		Network: slices.ContainsFunc(p.steps[p.reused:], func(l stepLink) bool { return l.material.Network }),
		Lent:    slices.ContainsFunc(p.steps[p.reused:], func(l stepLink) bool { return l.material.Boot }),
	}
	parent := p.ground().record
	if p.reused > 0 {
		parent = p.steps[p.reused-1].record
		b.guests.unsure = len(parent.Mounts) == 0 // of an older imgmut
		if !b.guests.unsure {
			b.guests.layout = p.layout.With(parent.Mounts)
		}
	}
	g, err := b.guests.start(ctx, work, want)
	if err != nil {
		return b.leftBy(p.reused-1, err)
	}
	for i := p.reused; i < len(p.steps); i++ {
		if err := b.commits.failed(); err != nil {
			return err // there will be no image, and no layer of what is still to run
		}
		changed, err := b.runStep(ctx, g, work, i, parent)
		if err != nil {
			return err
		}
		parent = p.steps[i].record
		if i == len(p.steps)-1 {
			break
		}
		if !changed {
			g.Cmdline = b.guests.image.Load().CommandLine() // of a kernel that the step has installed, perhaps
			continue
		}
		b.note("the step changed what the image mounts: the next ones see it so")
		if g, err = b.another(ctx, g, work, want); err != nil {
			return b.leftBy(i, err)
		}
	}
	return nil
}

// leftBy makes an error about the image one of the step that left it so; i is negative if
// that was none, but the base.
func (b *build) leftBy(i int, err error) error {
	if i < 0 {
		return err
	}
	l := b.plan.steps[i]
	if fault.Of(err) != fault.Image {
		return fmt.Errorf("after step %d (%s): %w", i+1, l.title(), err)
	}
	return &StepError{Index: i + 1, Name: l.title(), Kind: l.spec.Kind, Network: l.material.Network, Boot: l.material.Boot,
		Err: fmt.Errorf("it leaves what cannot be mounted: %w", err)}
}

// another gives the guest for the next step, where the system mounts other things than
// when this one started.
func (b *build) another(ctx context.Context, g *guest.Guest, work string, want guest.Spec) (*guest.Guest, error) {
	if err := g.Stop(); err != nil {
		return nil, err
	}
	return b.guests.start(ctx, work, want)
}

// runStep runs step i and makes its layer, on a layer that is known. changed says that
// the system mounts other things now than the guest has.
func (b *build) runStep(
	ctx context.Context, g *guest.Guest, work string, i int, parent record.Layer,
) (changed bool, err error) {
	l, steps := &b.plan.steps[i], len(b.plan.steps)
	started := time.Now()
	b.Events(Event{Type: EventStart, Step: i + 1, Steps: steps, Name: l.title(), Kind: l.spec.Kind})
	lines := &lineWriter{emit: func(line string) {
		b.Events(Event{Type: EventOutput, Step: i + 1, Name: l.title(), Text: line})
	}}
	changed, err = b.step(ctx, g, i, lines)
	lines.flush()
	if err == nil {
		l.record = record.Layer{Material: l.material, Name: l.spec.Name, Made: b.Now().UTC(), ParentMade: parent.Made,
			Mounts: slices.Clone(b.guests.image.Load().Layout.Mounts), Hidden: l.hidden,
			Unwatched: l.spec.Hidden == recipes.HiddenAllow, Took: time.Since(started)}
		err = b.seal(ctx, g, work, i, changed)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		b.Events(Event{Type: EventFailed, Step: i + 1, Steps: steps, Name: l.title(), Kind: l.spec.Kind,
			Took: time.Since(started)})
		tail := lines.tail()
		sealed := b.guests.image.Load().Sealed()
		if l.material.Boot {
			sealed = nil
		}
		err = b.writesUsr(g, err, tail)
		return changed, &StepError{Index: i + 1, Name: l.title(), Kind: l.spec.Kind, Network: l.material.Network, Boot: l.material.Boot,
			Tail: tail, Err: err, Sealed: sealed, Full: b.full(g.Rooms(), saysFull(tail, err))}
	}
	b.made[l.key] = l.record.Made
	b.Events(Event{Type: EventDone, Step: i + 1, Steps: steps, Name: l.title(), Kind: l.spec.Kind, Took: time.Since(started)})
	return changed, nil
}

// step runs step i, which may leave nothing where it will not be seen, unless it says
// so. changed says that it has changed what the system mounts.
func (b *build) step(ctx context.Context, g *guest.Guest, i int, out *lineWriter) (changed bool, err error) {
	l, image := &b.plan.steps[i], b.guests.image.Load()
	if err := b.needSpace(ctx, 0); err != nil {
		return false, err
	}
	had, sealed := *image.Layout, image.Sealed()
	had.Mounts = slices.Clone(had.Mounts)
	for _, why := range hiddenTargets(&had, l.spec, l.decoded) {
		return false, fault.New(fault.Step, mendHidden, "%s", why)
	}
	var before hiddenFiles
	if l.spec.Hidden != recipes.HiddenAllow {
		if before, err = hiddenIn(g, &had); err != nil {
			return false, err
		}
	}
	scoped := &scopedGuest{Guest: g, image: image, env: l.spec.Env, network: l.material.Network, out: out,
		timeout: l.spec.Timeout, deadline: time.Now().Add(l.spec.Timeout),
		sealed: sealedIn(image, g), scratch: b.run.Path("."), note: b.note,
		step: fmt.Sprintf("step %d (%s)", i+1, l.title())}
	if l.material.Boot {
		if scoped.lending, err = b.lend(g); err != nil {
			return false, err
		}
	}
	if err := l.decoded.Value.Apply(ctx, scoped, b.plan.source); err != nil {
		// A full store shows in a guest as anything: lost writes, I/O errors, a
		// filesystem that turned read-only. Say what it really was.
		if lost := g.Sync(); errors.Is(lost, guest.ErrLostWrites) {
			err = fmt.Errorf("%w: %w", lost, err)
		}
		return false, err
	}
	if scoped.lending != nil {
		if err := scoped.lending.lent.Keep(ctx); err != nil {
			return false, err
		}
	}
	changed, err = image.MountsChanged()
	if l.spec.Hidden == recipes.HiddenAllow || err != nil {
		return changed, err
	}
	if err := b.tellHidden(g, &had, before, l); err != nil {
		return false, err
	}
	if changed {
		err = b.remounted(g, had.Mounts, sealed, i, b.plan.base.Imported)
	}
	return changed, err
}

// tellHidden tells what a step has left where it will not be seen.
func (b *build) tellHidden(g *guest.Guest, had *disk.Layout, before hiddenFiles, l *stepLink) error {
	after, err := hiddenIn(g, had)
	left := after.left(before)
	if err != nil || len(left) == 0 {
		return err
	}
	return b.unseen(l, "", hiddenLeft(had, left))
}

// seal clones the fork as it is after step i. Making the clone durable and
// giving it its name goes on behind the next step.
func (b *build) seal(ctx context.Context, g *guest.Guest, work string, i int, changed bool) error {
	l := &b.plan.steps[i]
	file := b.run.Path(string(l.key) + ".raw")
	clone := func() error { return reflink.CloneFile(file, work, 0o600) }
	last := i == len(b.plan.steps)-1
	var err error
	if last {
		l.record.Settled = true
		err = b.cloneSettled(ctx, g, clone, changed)
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
func (b *build) cloneSettled(ctx context.Context, g *guest.Guest, clone func() error, changed bool) error {
	if b.guests.image.Load().MountsFAT() {
		if err := g.Flush(); err != nil {
			return err
		}
	}
	b.findChanges(ctx, changed || b.plan.commits) // meanwhile: that only reads, and the kernel takes its time to write
	if err := g.Settle(); err != nil {
		return err
	}
	if err := clone(); err != nil {
		return err
	}
	b.guests.stopLater(g)
	return nil
}
