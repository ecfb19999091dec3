package mutate

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/fork"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/verify"
	"github.com/imgmut/imgmut/recipes"
)

// wanted is what a recipe asks of the identity of its image. It is no part of any
// key: images that differ in it alone share all layers.
func wanted(r *recipes.Recipe) fork.Wanted {
	return fork.Wanted{Filesystems: r.Identity.Filesystems, Labels: r.Identity.Labels, KeepTypes: r.Identity.KeepTypes}
}

// identity is that of the image that a plan makes.
func (p *plan) identity() record.Identity {
	return wanted(p.recipe).Derive(p.layout, p.last(), p.recipe.Name)
}

// checkIdentity refuses a recipe that asks for what its base cannot be given.
func checkIdentity(r *recipes.Recipe, l *disk.Layout) error {
	refused, err := wanted(r).Check(l, r.Name)
	if err != nil {
		return err
	}
	var problems recipes.Problems
	for _, no := range refused {
		problems = append(problems, r.IdentityProblem(no.Field, "%s", no.Why))
	}
	return recipes.Merge(problems)
}

// makeImage makes a fork of the last layer that is an image of its own.
func (b *build) makeImage(ctx context.Context, id record.Identity) error {
	layout := b.plan.layout
	if !b.plan.commits {
		b.phase("identity")
	}
	if err := b.forkLast(b.imageFile()); err != nil {
		return err
	}
	if mountedOnce(layout) { // and the guest may still have it
		if err := b.guests.close(); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(b.imageFile(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if b.plan.commits {
		if err := b.deploy(ctx, f); err != nil {
			return err
		}
		b.phase("identity")
	}
	if err := b.identify(ctx, f, id); err != nil {
		return fmt.Errorf("give %s its identity: %w", b.plan.recipe.Name, err)
	}
	return mount.WaitReleased(ctx, b.imageFile())
}

// identify gives the image f its identity.
func (b *build) identify(ctx context.Context, f *os.File, id record.Identity) error {
	if b.changes == nil {
		return b.identifyAlone(ctx, f, id)
	}
	found := <-b.changes
	switch {
	case errors.Is(found.err, fork.ErrTooMuch):
		return b.unfit(found.err)
	case found.err != nil:
		return found.err
	}
	i, err := disk.OpenCurrent(ctx, f, found.layout, b.note)
	if err != nil {
		return err
	}
	return errors.Join(fork.Identify(ctx, i, found.changes, b.from(), id, b.note), i.Close())
}

// identifyAlone is identify by nothing but the image.
func (b *build) identifyAlone(ctx context.Context, f *os.File, id record.Identity) (err error) {
	layout := b.plan.layout
	if b.plan.commits { // the system is another deployment now
		layout = layout.With(nil)
	}
	i, err := disk.OpenKnown(ctx, f, layout, b.note)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	if err := b.settle(i); err != nil {
		return err
	}
	if err := i.FindRoles(); fault.Of(err) == fault.Image {
		return b.unfit(err)
	} else if err != nil {
		return err
	}
	changes, err := fork.Find(ctx, i, b.from(), id, b.everywhere)
	if errors.Is(err, fork.ErrTooMuch) {
		return b.unfit(err)
	} else if err != nil {
		return err
	}
	return fork.Identify(ctx, i, changes, b.from(), id, b.note)
}

// from is the base, as far as its identity matters. Which files are clean another
// version of imgmut may have judged otherwise.
func (b *build) from() fork.Base {
	from := fork.Base{File: b.base}
	if b.plan.base.Judged == verify.Judges() {
		from.Clean, from.Naming = b.plan.base.Clean, b.plan.base.Naming
	}
	return from
}

// foundChanges are what an identity changes in the files of a guest.
type foundChanges struct {
	layout  *disk.Layout
	changes *fork.Changes
	err     error
}

// findChanges begins to look for what the identity changes, in the files of the guest
// whose last step has ended: the image will hold the same, and here it was read already.
// Not if the system mounts other things now: then the image has to be asked itself.
func (b *build) findChanges(ctx context.Context, remounted bool) {
	if remounted {
		return
	}
	twin, done := b.guests.keepImage()
	b.changes = make(chan foundChanges, 1)
	go func() {
		defer done()
		changes, err := fork.Find(ctx, twin, b.from(), b.plan.identity(), false)
		b.changes <- foundChanges{twin.Layout, changes, err}
	}()
}

// settle has the kernel replay the journals of a fork whose layer was frozen,
// not unmounted: it is one from the middle of another recipe. So the bytes of an
// image do not depend on who made its last layer. If no step ran, the journals are
// those of the base, which may be of a system that was running.
func (b *build) settle(i *disk.Image) error {
	if n := len(b.plan.steps); n > 0 && b.plan.steps[n-1].record.Settled {
		return nil
	}
	if err := i.Replay(i.Volumes()); err != nil {
		return fmt.Errorf("replay journals: %w", err)
	}
	return nil
}
