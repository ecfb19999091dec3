package catalog

import (
	"context"
	"fmt"
	"slices"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

// Recipes name bases and images alike, so a name is that of one thing. Whoever
// gives a name to something, or takes it away, holds the name's lock from the
// look at what has it until that is done.

// HoldName takes the lock of a name, and waits for whoever has it.
func (c Catalog) HoldName(ctx context.Context, name string) (release func(), err error) {
	release, ok, err := c.Store.TryLock("name-" + name)
	if ok || err != nil {
		return release, err
	}
	c.Note("waiting: another imgmut works on " + name)
	return c.Store.Lock(ctx, "name-"+name)
}

// taken says that a name is that of something else: by is "an image" or "a base".
func taken(name, by string) error {
	return fault.New(fault.Usage, "choose another, or remove what has it with imgmut rm "+name,
		"name %s: %s has it", name, by)
}

// FreeForImage is an error of class [fault.Usage] if a base has the name. The
// caller holds it.
func (c Catalog) FreeForImage(name string) error {
	bases, err := c.Bases()
	if err != nil {
		return err
	}
	for _, b := range bases {
		if slices.Contains(b.Names, name) {
			return taken(name, "a base")
		}
	}
	return nil
}

// FreeForBase is an error of class [fault.Usage] if an image has the name. Another
// base may have it: a base can be replaced by its successor. The caller holds it.
func (c Catalog) FreeForBase(name string) error {
	is, err := c.HasImage(name)
	if err == nil && is {
		err = taken(name, "an image")
	}
	return err
}

// NameBase gives a base a name, which no other base has afterwards. The caller
// holds it, and has found it free. It is given before it is taken from another, so
// that a crash leaves it with two bases rather than with none; see [Catalog.FindBase].
func (c Catalog) NameBase(ctx context.Context, b *record.Base, name string) error {
	if !slices.Contains(b.Names, name) {
		err := c.Store.Update(ctx, store.Bases, b.Digest, b, func() error {
			if !slices.Contains(b.Names, name) {
				b.Names = append(b.Names, name)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return c.unname(ctx, name, b.Digest)
}

// UnnameBase takes a name from the base that has it, which stays.
func (c Catalog) UnnameBase(ctx context.Context, name string) error { return c.unname(ctx, name, "") }

// unname takes a name from every base but the one with this digest.
func (c Catalog) unname(ctx context.Context, name, but string) error {
	bases, err := c.Bases()
	if err != nil {
		return err
	}
	for _, b := range bases {
		if b.Digest == but || !slices.Contains(b.Names, name) {
			continue
		}
		c.Note(fmt.Sprintf("%s was the name of the base %.12s until now", name, b.Digest))
		err := c.Store.Update(ctx, store.Bases, b.Digest, b, func() error {
			b.Names = slices.DeleteFunc(b.Names, func(n string) bool { return n == name })
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
