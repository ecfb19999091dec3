// Package catalog finds, lists, names and collects what a store holds.
//
// The store knows files, names and records as bytes; this package knows what
// the records say. It needs a store and nothing else, so that code which lists
// images need not know how to make them.
//
// Others write to the store at the same time. What is listed may be gone a
// moment later. A record may be unreadable, because the disk is damaged or
// another version wrote it: the user is told of it, with the mend, and all else
// goes on as if its object were not there. No base or image is removed because a
// record cannot be read.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

// Catalog is what a store holds, by the words of its users.
type Catalog struct {
	Store *store.Store
	// Note is told of records that cannot be read, and of names that change
	// hands. It must not block for long.
	Note func(string)
}

// list loads all readable records of a kind.
func list[R any](c Catalog, k store.Kind) ([]*R, error) {
	names, err := c.Store.Names(k)
	if err != nil {
		return nil, err
	}
	var all []*R
	for _, name := range names {
		rec := new(R)
		switch err := c.Store.Load(k, name, rec); {
		case err == nil:
			all = append(all, rec)
		case errors.Is(err, store.ErrNotFound): // removed since
		case errors.Is(err, store.ErrBadRecord):
			c.Note(fmt.Sprintf("%v; %s", err, fault.Mend(err)))
		default:
			return nil, err
		}
	}
	return all, nil
}

// Bases lists all bases.
func (c Catalog) Bases() ([]*record.Base, error) { return list[record.Base](c, store.Bases) }

// Images lists all images.
func (c Catalog) Images() ([]*record.Image, error) { return list[record.Image](c, store.Images) }

// minDigest is the least number of digits by which a base may be named.
const minDigest = 12

// FindBase finds a base by name, or by its digest, of which 12 digits will do.
// It is [store.ErrNotFound] if there is none. Of two, which a crash while a name
// changed hands may leave, it is the one that was imported last.
func (c Catalog) FindBase(name string) (*record.Base, error) {
	bases, err := c.Bases()
	if err != nil {
		return nil, err
	}
	var found *record.Base
	for _, b := range bases {
		if !slices.Contains(b.Names, name) && (len(name) < minDigest || !strings.HasPrefix(b.Digest, name)) {
			continue
		}
		if found == nil || b.Imported.After(found.Imported) {
			found = b
		}
	}
	if found == nil {
		return nil, fmt.Errorf("base %s: %w", name, store.ErrNotFound)
	}
	return found, nil
}

// FindImage gives the record of an image, or [store.ErrNotFound].
func (c Catalog) FindImage(name string) (*record.Image, error) {
	i := new(record.Image)
	return i, c.Store.Load(store.Images, name, i)
}

// HasImage says whether an image has that name, even one whose record cannot
// be read.
func (c Catalog) HasImage(name string) (bool, error) {
	_, err := c.FindImage(name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return false, nil
	case errors.Is(err, store.ErrBadRecord):
		return true, nil
	}
	return err == nil, err
}

// ImageFile is the path of an image's raw file.
func (c Catalog) ImageFile(name string) string { return c.Store.Path(store.Images, name, "raw") }

// BaseFile is the path of a base's raw file.
func (c Catalog) BaseFile(digest string) string { return c.Store.Path(store.Bases, digest, "raw") }

// LayerFile is the path of a layer's raw file.
func (c Catalog) LayerFile(k record.Key) string { return c.Store.Path(store.Layers, string(k), "raw") }

// FromBase lists the images that were made of a base, by name.
func (c Catalog) FromBase(digest string) ([]string, error) {
	return c.made(func(i *record.Image) bool { return i.Base == digest })
}

// FromImage lists the images whose recipes name another one as their base, by name.
func (c Catalog) FromImage(name string) ([]string, error) {
	return c.made(func(i *record.Image) bool { return i.BaseName == name })
}

func (c Catalog) made(of func(*record.Image) bool) ([]string, error) {
	images, err := c.Images()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range images {
		if of(i) {
			names = append(names, i.Name)
		}
	}
	return names, nil
}

// Exclusive waits until no apply is under way: the layers of one belong to no
// image yet.
func (c Catalog) Exclusive(ctx context.Context) (release func(), err error) {
	return c.Store.Clear(ctx)
}
