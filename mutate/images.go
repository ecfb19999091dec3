package mutate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/layer"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/verify"
)

func (e *Engine) imagePath(name string) string { return e.Store.Path(store.Images, name, "raw") }

// FindImage gives the record of an image.
func (e *Engine) FindImage(name string) (*Image, error) {
	i := new(Image)
	return i, e.Store.Load(store.Images, name, i)
}

// Images lists all images.
func (e *Engine) Images() ([]*Image, error) {
	names, err := e.Store.Names(store.Images)
	if err != nil {
		return nil, err
	}
	var images []*Image
	for _, n := range names {
		i, err := e.FindImage(n)
		if errors.Is(err, store.ErrNotFound) { // removed since
			continue
		}
		if err != nil {
			return nil, err
		}
		images = append(images, i)
	}
	return images, nil
}

// Verify judges a raw image file as it is, with no recipe: its table, its
// filesystems, its references.
func (e *Engine) Verify(ctx context.Context, file string) (*verify.Verdict, error) {
	return e.verify(ctx, file, nil)
}

// VerifyImage judges an image of the store anew, with the assertions of its
// recipe as they were when it was made, and records the verdict.
func (e *Engine) VerifyImage(ctx context.Context, name string) (*verify.Verdict, error) {
	i, err := e.FindImage(name)
	if err != nil {
		return nil, err
	}
	assertions, err := verify.Recall(i.Assertions)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", name, err)
	}
	v, err := e.verify(ctx, e.imagePath(name), assertions)
	if err != nil {
		return nil, err
	}
	same, err := e.sameContent(ctx, i)
	if err != nil {
		return nil, err
	}
	if now, err := e.FindImage(name); err == nil && now.Digest != i.Digest {
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
func (e *Engine) sameContent(ctx context.Context, i *Image) (*verify.Check, error) {
	started := time.Now()
	f, err := os.Open(e.imagePath(i.Name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sums, err := content.Sum(ctx, f, e.progress("digest"))
	if err != nil {
		return nil, err
	}
	c := &verify.Check{Name: "content", OK: sums.Digest() == i.Digest, Took: time.Since(started)}
	if !c.OK {
		c.Detail = "it does not have the bytes that were published: it was written to since"
	}
	return c, nil
}

func (e *Engine) verify(ctx context.Context, file string, assertions []verify.Assertion) (_ *verify.Verdict, err error) {
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
	if gs.layout, err = disk.List(ctx, f); err != nil {
		return nil, fmt.Errorf("verify %s: %w", file, err)
	}
	if len(assertions) > 0 {
		if err := e.assignRoles(ctx, gs.layout, f); err != nil {
			return nil, fmt.Errorf("verify %s: %w", file, err)
		}
	}
	defer func() { err = errors.Join(err, gs.close()) }()
	v, err := gs.judge(ctx, file, assertions)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", file, err)
	}
	return v, nil
}

// clear waits until no apply is under way: its layers belong to no image yet.
func (e *Engine) clear(ctx context.Context) (release func(), err error) {
	return e.Store.Clear(ctx, func() { e.note("waiting for another imgmut that uses the store") })
}

// Removed is what a removal did.
type Removed struct {
	Images []string `json:"images"`
	Bases  []string `json:"bases"`
	Layers []string `json:"layers"`
	Kept   []string `json:"kept"` // files, of what failed
}

// nothingRemoved has lists that are empty and not missing, for JSON.
func nothingRemoved() *Removed {
	return &Removed{Images: []string{}, Bases: []string{}, Layers: []string{}, Kept: []string{}}
}

// Remove removes an image, with its copy in machined's pool, or a base. What
// nothing else needs goes with the next [Engine.Collect].
func (e *Engine) Remove(ctx context.Context, name string) (*Removed, error) {
	i, err := e.FindImage(name)
	if err == nil {
		if i.PoolFile != nil {
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
		r := nothingRemoved()
		r.Images = append(r.Images, name)
		return r, e.Store.Remove(store.Images, name)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	release, err := e.clear(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	b, err := e.FindBase(name)
	if err != nil {
		return nil, fmt.Errorf("image or base %s: %w", name, store.ErrNotFound)
	}
	if err := e.Store.Remove(store.Bases, b.Digest); err != nil {
		return nil, err
	}
	r := nothingRemoved()
	r.Bases = append(r.Bases, b.Digest)
	return r, nil
}

// Collect removes the layers that no image is made of, and bases without a
// name that nothing is made of. With dryRun it only tells.
func (e *Engine) Collect(ctx context.Context, dryRun bool) (*Removed, error) {
	release, err := e.clear(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := e.Store.Sweep(ctx); err != nil {
		return nil, err
	}
	images, err := e.Images()
	if err != nil {
		return nil, err
	}
	needed := map[layer.Key]bool{}
	based := map[string]bool{}
	for _, i := range images {
		based[i.Base] = true
		for _, k := range i.Keys {
			needed[k] = true
		}
	}
	r := nothingRemoved()
	keys, err := e.Store.Names(store.Layers)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if !needed[layer.Key(k)] {
			r.Layers = append(r.Layers, k)
		}
	}
	bases, err := e.Bases()
	if err != nil {
		return nil, err
	}
	for _, b := range bases {
		if len(b.Names) == 0 && !based[b.Digest] {
			r.Bases = append(r.Bases, b.Digest)
		}
	}
	if r.Kept, err = e.Store.DropKept(dryRun); err != nil || dryRun {
		return r, err
	}
	if err := e.Store.ClearLocks(); err != nil {
		return nil, err
	}
	for kind, names := range map[store.Kind][]string{store.Layers: r.Layers, store.Bases: r.Bases} {
		for _, n := range names {
			if err := e.Store.Remove(kind, n); err != nil && !errors.Is(err, store.ErrNotFound) {
				return nil, err
			}
		}
	}
	return r, nil
}
