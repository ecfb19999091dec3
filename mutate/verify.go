package mutate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/verify"
)

// Verify judges a raw image file as it is, with no recipe: its table, its
// filesystems, its references.
func (e *Engine) Verify(ctx context.Context, file string) (*record.Verdict, error) {
	return e.verify(ctx, file, nil, nil)
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
	was := &verify.Base{Known: i.Known, IDs: slices.Collect(maps.Keys(i.Identity.Partitions)),
		Filesystems: slices.Collect(maps.Keys(i.Identity.Filesystems)), Labels: slices.Collect(maps.Keys(i.Identity.Labels))}
	for _, c := range i.Verdict.Checks {
		was.Told = append(was.Told, c.Notes...)
	}
	if was.File, err = os.Open(e.Catalog().BaseFile(i.Base)); err == nil {
		defer was.File.Close()
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	v, err := e.verify(ctx, e.Catalog().ImageFile(name), was, assertions)
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

func (e *Engine) verify(
	ctx context.Context, file string, was *verify.Base, assertions []verify.Assertion,
) (_ *record.Verdict, err error) {
	file, err = filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	f, err := openRaw(file)
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
	v, err := gs.judge(ctx, file, was, assertions)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", file, err)
	}
	return v, nil
}
