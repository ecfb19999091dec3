package mutate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/verify"
)

// existingImage gives the image of the plan if it is there already: same chain,
// same identity, same assertions, and a file that nobody has touched since.
func (e *Engine) existingImage(p *plan, assertions []verify.Assertion) (*record.Image, bool, error) {
	if p.reused != len(p.steps) || !p.hasGround() {
		return nil, false, nil
	}
	i, err := e.Catalog().FindImage(p.recipe.Name)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrBadRecord) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	asked, err := verify.Record(assertions)
	if err != nil {
		return nil, false, err
	}
	same := i.Keys[len(i.Keys)-1] == p.last() && madeOf(i, p.lastMade()) &&
		i.Identity.Equal(p.identity()) && i.Ostree.Equal(ostreeOf(p.recipe)) &&
		record.SameAssertions(i.Assertions, asked) && i.Verdict.OK && e.unchanged(i)
	return i, same, nil
}

// madeOf says whether an image was made of the layer of that time.
func madeOf(i *record.Image, layer time.Time) bool {
	if i.LayerMade.IsZero() {
		return !i.Made.Before(layer)
	}
	return i.LayerMade.Equal(layer)
}

// lastMade is when the last layer of the chain was made.
func (p *plan) lastMade() time.Time {
	if n := len(p.steps); n > 0 {
		return p.steps[n-1].record.Made
	}
	return p.ground().record.Made
}

// unchanged says that an image's file is the one that was published.
func (e *Engine) unchanged(i *record.Image) bool {
	f, err := os.Open(e.Catalog().ImageFile(i.Name))
	if err != nil {
		return false
	}
	defer f.Close()
	id, err := content.IDOf(f)
	return err == nil && id.SameFile(i.File)
}

// finish makes the image of the last layer: identity, verdict, record.
func (b *build) finish(ctx context.Context, assertions []verify.Assertion, o ApplyOptions) (*record.Image, error) {
	id := b.plan.identity()
	b.beginSums(ctx)
	if err := b.makeImage(ctx, id); err != nil {
		return nil, err
	}
	if o.HostDone != nil {
		b.behind.Go(func() {
			b.ended = b.guests.close()
			o.HostDone()
		})
	}
	verdict, sums, err := b.verifyAndSum(ctx, id, assertions)
	if b.namesLeft(err) {
		if verdict, sums, err = b.finishAnew(ctx, id, assertions); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	for _, c := range verdict.Checks {
		for _, text := range c.Notes {
			b.note(fmt.Sprintf("note: %s: %s", c.Name, text))
		}
	}
	if err := b.commits.wait(); err != nil {
		return nil, err
	}
	i, err := b.record(ctx, id, *verdict, assertions)
	if err != nil {
		return nil, err
	}
	i.Digest = sums.Digest()
	if i.File, err = content.IDOfPath(b.imageFile()); err != nil {
		return nil, err
	}
	return i, b.Store.Publish(ctx, b.imageFile(), store.Images, i.Name, i, nil)
}

// imageFile is the image before it has its name.
func (b *build) imageFile() string { return b.run.Path("image.raw") }

// verifyAndSum verifies the image and sums its bytes. It is a [*VerifyError] if the
// image is not what it should be.
func (b *build) verifyAndSum(
	ctx context.Context, id record.Identity, assertions []verify.Assertion,
) (*record.Verdict, *content.Sums, error) {
	known, err := b.findings(ctx, b.plan.base)
	if err != nil {
		return nil, nil, err
	}
	b.phase("verify")
	// Both only read, and neither keeps all cores busy.
	summed := make(chan error, 1)
	var sums *content.Sums
	go func() {
		var err error
		sums, err = b.imageSums(ctx)
		summed <- err
	}()
	was := &verify.Base{Known: known, IDs: slices.Collect(maps.Keys(id.Partitions)),
		Filesystems: slices.Collect(maps.Keys(id.Filesystems)), Labels: slices.Collect(maps.Keys(id.Labels)),
		Clean: b.plan.base.Clean, File: b.base}
	verdict, err := b.guests.judge(ctx, b.imageFile(), was, assertions)
	sumErr := <-summed
	switch {
	case sumErr != nil:
		err = errors.Join(err, sumErr)
	case fault.Of(err) == fault.Image:
		err = b.unfit(err)
	case err == nil && !verdict.OK:
		err = &VerifyError{b.plan.recipe.Name, verdict.Failed()}
	}
	return verdict, sums, err
}

// namesLeft says whether an image is not what it should be because a file names what only the
// base has, where nobody looked for one: no such file is known to have been in the base.
func (b *build) namesLeft(err error) bool {
	var failed *VerifyError
	return !b.everywhere && errors.As(err, &failed) &&
		slices.ContainsFunc(failed.Failed, func(c record.Check) bool { return c.Name == verify.Closure })
}

// finishAnew makes the image once more and looks everywhere for what its identity changes.
// Nothing was asserted of the first one yet, because that comes when all checks have passed.
// That takes longer, and few recipes need it: a step has to name a partition by its UUID in a
// file that no boot loader and no part of a system is known to have.
func (b *build) finishAnew(
	ctx context.Context, id record.Identity, assertions []verify.Assertion,
) (*record.Verdict, *content.Sums, error) {
	b.note("a file names a partition of the base where none was known to: the image is made once more, with a look everywhere")
	b.everywhere, b.changes = true, nil
	err := os.Remove(b.imageFile())
	if err == nil {
		err = b.makeImage(ctx, id)
	}
	if err != nil {
		return nil, nil, err
	}
	return b.verifyAndSum(ctx, id, assertions)
}

// unfit is the verdict on an image that cannot be looked into. Its base could, so that
// is the recipe's doing.
func (b *build) unfit(err error) error {
	return &VerifyError{b.plan.recipe.Name, []record.Check{{Name: "operating system", Detail: err.Error()}}}
}

// forkLast forks the last layer, which may not have its name yet.
func (b *build) forkLast(file string) (err error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(reflink.Clone(f, b.last), f.Close())
}

// record is what will be known of the image, but for its file and digest.
func (b *build) record(
	ctx context.Context, id record.Identity, v record.Verdict, assertions []verify.Assertion,
) (*record.Image, error) {
	p := b.plan
	asked, err := verify.Record(assertions)
	if err != nil {
		return nil, err
	}
	i := &record.Image{
		Name: p.recipe.Name, Size: p.size(), Made: b.Now().UTC(),
		Base: p.base.Digest, BaseName: p.recipe.Base.Name, Keys: []record.Key{p.prepare.key}, LayerMade: p.lastMade(),
		Recipe: p.recipe.Path, RecipeSum: p.recipe.Digest, Identity: id, Assertions: asked,
		Known: p.base.Findings, Verdict: v, Imgmut: b.Version, Ostree: ostreeOf(p.recipe), Deployments: b.guests.deployments,
	}
	if p.bootc != nil {
		i.Keys = append(i.Keys, p.bootc.key)
	}
	for _, l := range p.steps {
		i.Keys = append(i.Keys, l.key)
	}
	if before, err := b.Catalog().FindImage(i.Name); err == nil { // so that rm still finds the copy in machined's pool
		i.PoolFile = before.PoolFile
	}
	if p.reused < len(p.steps) || len(assertions) > 0 { // else none was started
		h, err := b.Host(ctx)
		if err != nil {
			return nil, err
		}
		i.Systemd = h.Version()
	}
	return i, nil
}

// beginSums begins to sum up the last layer. Its sums are most of the image's, and while
// that gets its identity there is little else to do.
func (b *build) beginSums(ctx context.Context) {
	ctx, b.stop = context.WithCancel(ctx)
	b.sums = sync.OnceValues(func() (*content.Sums, error) { return b.layerSums(ctx) })
	b.behind.Go(func() { b.sums() })
}

// layerSums makes the chunk sums of the last layer.
func (b *build) layerSums(ctx context.Context) (*content.Sums, error) {
	list, err := os.ReadFile(b.Store.Path(store.Bases, b.plan.base.Digest, "sums"))
	if err != nil {
		return nil, err
	}
	var sums content.Sums
	if err := sums.UnmarshalBinary(list); err != nil { // an older imgmut's, perhaps
		return nil, fault.New(fault.Host, "remove the base with imgmut rm --force, and import it again",
			"base %.12s: %w", b.plan.base.Digest, err)
	}
	return sums.Update(ctx, b.base, b.last)
}

// imageSums makes those of the image.
func (b *build) imageSums(ctx context.Context) (*content.Sums, error) {
	sums, err := b.sums()
	if err != nil {
		return nil, err
	}
	f, err := os.Open(b.imageFile())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return sums.Update(ctx, b.last, f)
}
