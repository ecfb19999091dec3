package mutate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/imgmut/imgmut/mutate/catalog"
	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/verify"
)

// Verify judges a raw image file as it is, with no recipe: its table, its
// filesystems, its references.
func (e *Engine) Verify(ctx context.Context, file string) (*record.Verdict, error) {
	return e.verify(ctx, file, nil)
}

// VerifyImage judges an image of the store anew, with the assertions of its
// recipe as they were when it was made, and records the verdict.
func (e *Engine) VerifyImage(ctx context.Context, name string) (*record.Verdict, error) {
	i, err := e.Catalog().FindImage(name)
	if err != nil {
		return nil, err
	}
	assertions, err := verify.Recall(i.Assertions)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", name, err)
	}
	v, err := e.verify(ctx, e.Catalog().ImageFile(name), assertions)
	if err != nil {
		return nil, err
	}
	same, err := e.sameContent(ctx, i)
	if err != nil {
		return nil, err
	}
	if now, err := e.Catalog().FindImage(name); err == nil && now.Digest != i.Digest {
		return e.VerifyImage(ctx, name) // it was made anew meanwhile
	}
	v.OK = v.OK && same.OK
	v.Checks = append(v.Checks, *same)
	judged := i.Digest
	return v, e.Store.Update(ctx, store.Images, name, i, func() error {
		if i.Digest == judged { // and not one that was made meanwhile
			i.Verdict = *v
		}
		return nil
	})
}

// sameContent checks that the image has the bytes that were published.
func (e *Engine) sameContent(ctx context.Context, i *record.Image) (*record.Check, error) {
	started := time.Now()
	f, err := os.Open(e.Catalog().ImageFile(i.Name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sums, err := content.Sum(ctx, f, e.progress("digest"))
	if err != nil {
		return nil, err
	}
	c := &record.Check{Name: "content", OK: sums.Digest() == i.Digest, Took: time.Since(started)}
	if !c.OK {
		c.Detail = "it does not have the bytes that were published: it was written to since"
	}
	return c, nil
}

func (e *Engine) verify(ctx context.Context, file string, assertions []verify.Assertion) (_ *record.Verdict, err error) {
	file, err = filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	f, err := openImage(file)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", file, err)
	}
	defer f.Close()
	run, err := e.Store.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	e.phase("verify " + file)
	gs := &guests{Engine: e, run: run}
	defer func() { err = errors.Join(err, gs.close()) }()
	v, err := gs.judge(ctx, file, assertions)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", file, err)
	}
	return v, nil
}

// Remove removes an image, with its copy in machined's pool, or a base. What
// nothing else needs goes with the next [catalog.Catalog.Collect].
func (e *Engine) Remove(ctx context.Context, name string) (*catalog.Removed, error) {
	is, err := e.Catalog().HasImage(name)
	if err != nil {
		return nil, err
	}
	if is {
		return e.removeImage(ctx, name)
	}
	// An import or apply may be about to use the base, and would hold its name.
	release, err := e.Catalog().Exclusive(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	digest := name // of a base whose record cannot be read, this is all there is
	switch b, err := e.Catalog().FindBase(name); {
	case err == nil:
		digest = b.Digest
	case !errors.Is(err, store.ErrNotFound):
		return nil, err
	}
	if err := e.Store.Remove(ctx, store.Bases, digest); errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("image or base %s: %w", name, store.ErrNotFound)
	} else if err != nil {
		return nil, err
	}
	r := catalog.NothingRemoved()
	r.Bases = append(r.Bases, digest)
	return r, nil
}

// removeImage removes an image. It waits for an apply that makes it anew, or
// that has still to register it.
func (e *Engine) removeImage(ctx context.Context, name string) (*catalog.Removed, error) {
	letGo, err := e.Catalog().HoldName(ctx, name)
	if err != nil {
		return nil, err
	}
	defer letGo()
	i, err := e.Catalog().FindImage(name)
	if err != nil && !errors.Is(err, store.ErrBadRecord) {
		return nil, err
	}
	if err == nil && i.PoolFile != nil {
		unlock, err := e.lockMachine(ctx, "pool-"+name, "registers an image of that name")
		if err != nil {
			return nil, err
		}
		defer unlock()
		// Another store's image of that name is not ours to remove.
		if digest, err := e.readMark(i.PoolFile.Path); err == nil && digest != "" {
			if err := os.Remove(i.PoolFile.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
		}
	}
	r := catalog.NothingRemoved()
	r.Images = append(r.Images, name)
	return r, e.Store.Remove(ctx, store.Images, name)
}
