package mutate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// Removed is what a removal removed.
type Removed struct {
	Images []string `json:"images"` // names
	Bases  []string `json:"bases"`  // digests
	Names  []string `json:"names"`  // of bases that stay, since they have others
}

// Remove removes images, with their copies in machined's pool, and bases. Their
// layers go with the next [catalog.Catalog.Collect]. All names are looked up
// before the first is removed. A base or image is refused, unless force is set, if
// images are made of it that are not removed with it. One of several names of a base is
// removed alone; the base goes with the last.
func (e *Engine) Remove(ctx context.Context, names []string, force bool) (*Removed, error) {
	r, err := e.removable(names, force)
	if err == nil && len(r.Bases)+len(r.Names) > 0 {
		var release func()
		if release, err = e.Catalog().Exclusive(ctx); err != nil { // an import or apply may be about to use it
			return nil, err
		}
		defer release()
		r, err = e.removable(names, force)
	}
	if err != nil {
		return nil, err
	}
	for _, name := range r.Images {
		if err := e.removeImage(ctx, name); err != nil {
			return nil, fmt.Errorf("remove image %s: %w", name, err)
		}
	}
	for _, digest := range r.Bases {
		if err := e.Store.Remove(ctx, store.Bases, digest); err != nil {
			return nil, fmt.Errorf("remove base %.12s: %w", digest, err)
		}
	}
	for _, name := range r.Names {
		if err := e.Catalog().UnnameBase(ctx, name); err != nil {
			return nil, fmt.Errorf("remove name %s of a base: %w", name, err)
		}
	}
	return r, nil
}

// removable finds out what has these names, and refuses what others need.
func (e *Engine) removable(names []string, force bool) (*Removed, error) {
	r := &Removed{Images: []string{}, Bases: []string{}, Names: []string{}} // not missing, for JSON
	called := map[string]string{}                                           // bases, as the user calls them
	for _, name := range names {
		is, err := e.Catalog().HasImage(name)
		if err != nil {
			return nil, err
		}
		if is {
			r.Images = append(r.Images, name)
			continue
		}
		digest, left, err := e.baseDigest(name, names)
		if err != nil {
			return nil, err
		}
		if left {
			r.Names = append(r.Names, name)
			continue
		}
		r.Bases = append(r.Bases, digest)
		called[digest] = name
	}
	slices.Sort(r.Images)
	slices.Sort(r.Bases)
	slices.Sort(r.Names)
	r.Images, r.Bases, r.Names = slices.Compact(r.Images), slices.Compact(r.Bases), slices.Compact(r.Names)
	if force {
		return r, nil
	}
	return r, e.unneeded(r, called)
}

// unneeded refuses to remove what other images are made of. Of an image that is a base
// only the name would be lost, by which their recipes find it.
func (e *Engine) unneeded(r *Removed, called map[string]string) error {
	refuse := func(what, but string, made []string, err error) error {
		made = slices.DeleteFunc(made, func(image string) bool { return slices.Contains(r.Images, image) })
		if err != nil || len(made) == 0 {
			return err
		}
		return fault.New(fault.Usage, "remove those as well, or say --force: they stay whole, but "+but,
			"%s: images are made of it: %s", what, strings.Join(made, ", "))
	}
	for _, digest := range r.Bases {
		made, err := e.Catalog().FromBase(digest)
		if err := refuse("base "+called[digest], "cannot be made again", made, err); err != nil {
			return err
		}
	}
	for _, name := range r.Images {
		made, err := e.Catalog().FromImage(name)
		if err := refuse("image "+name, "their recipes find no base "+name, made, err); err != nil {
			return err
		}
	}
	return nil
}

// lostBase is the mend where the name is gone of what a recipe's image was made of, and
// its bytes are still a base; "" if it is not so.
func (e *Engine) lostBase(r *recipes.Recipe) string {
	i, err := e.Catalog().FindImage(r.Name)
	if err != nil || i.BaseName != r.Base.Name {
		return ""
	}
	if _, err := e.Catalog().FindBase(i.Base); err != nil {
		return ""
	}
	return fmt.Sprintf("it was removed; what %s was made of is here still, and has the name again after imgmut import %s %s",
		r.Name, e.Catalog().BaseFile(i.Base), r.Base.Name)
}

// baseDigest finds a base, also by the digest of one whose record cannot be
// read. It is left if it has a name that is not among those to be removed, and
// was not given by its digest.
func (e *Engine) baseDigest(name string, names []string) (digest string, left bool, err error) {
	b, err := e.Catalog().FindBase(name)
	if err == nil {
		left = slices.Contains(b.Names, name) &&
			slices.ContainsFunc(b.Names, func(other string) bool { return !slices.Contains(names, other) })
		return b.Digest, left, nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return "", false, err
	}
	digests, err := e.Store.Names(store.Bases)
	if err != nil {
		return "", false, err
	}
	if slices.Contains(digests, name) {
		return name, false, nil
	}
	return "", false, fault.New(fault.NotFound, "imgmut ls lists them", "image or base %s: %w", name, store.ErrNotFound)
}

// removeImage removes an image and its copy in machined's pool. It waits for an
// apply that makes it anew, or that has still to register it.
func (e *Engine) removeImage(ctx context.Context, name string) error {
	letGo, err := e.Catalog().HoldName(ctx, name)
	if err != nil {
		return err
	}
	defer letGo()
	i, err := e.Catalog().FindImage(name)
	switch {
	case err == nil:
		err = e.machinedPool().Take(ctx, i)
	case errors.Is(err, store.ErrBadRecord):
		err = e.machinedPool().TakeUnrecorded(ctx, name)
	}
	if err != nil {
		return err
	}
	return e.Store.Remove(ctx, store.Images, name)
}
