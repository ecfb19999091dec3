package mutate

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

var (
	usedBase   = strings.Repeat("a1", 32)
	unusedBase = strings.Repeat("b2", 32)
	looseBase  = strings.Repeat("c3", 32)
)

// stocked is a store with two bases that have names and one that has none, two
// images of the first, and one that was made of an image.
func stocked(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.publish(t, store.Bases, usedBase, record.Base{Digest: usedBase, Names: []string{"debian-12", "stable"}})
	w.publish(t, store.Bases, unusedBase, record.Base{Digest: unusedBase, Names: []string{"debian-13"}})
	w.publish(t, store.Bases, looseBase, record.Base{Digest: looseBase, Names: []string{}, Source: "/x/loose.raw"})
	for _, name := range []string{"db", "web"} {
		w.publish(t, store.Images, name, record.Image{Name: name, Base: usedBase, Keys: []record.Key{"k"}})
	}
	w.publish(t, store.Images, "shop", record.Image{Name: "shop", Base: looseBase, BaseName: "web", Keys: []record.Key{"k"}})
	return w
}

// left are the names of all images and bases.
func (w *world) left(t *testing.T) []string {
	t.Helper()
	images, err := w.Catalog().Images()
	bases, baseErr := w.Catalog().Bases()
	if err := errors.Join(err, baseErr); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range images {
		names = append(names, i.Name)
	}
	for _, b := range bases {
		names = append(names, b.Digest[:2])
	}
	return names
}

// TestRemoveOneName removes one of the names of a base, and nothing else.
func TestRemoveOneName(t *testing.T) {
	w := stocked(t)
	r, err := w.Remove(t.Context(), []string{"stable"}, false)
	if err != nil || !slices.Equal(r.Names, []string{"stable"}) || len(r.Bases) > 0 {
		t.Fatalf("Remove = %+v, %v, want the name alone", r, err)
	}
	b, err := w.Catalog().FindBase("debian-12")
	if err != nil || !slices.Equal(b.Names, []string{"debian-12"}) {
		t.Errorf("the base is %+v, %v, want it named debian-12", b, err)
	}
	if b, err := w.Catalog().FindBase("stable"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("stable is %+v, %v, want nothing", b, err)
	}
}

// TestRemove removes all that it is asked for, or nothing.
func TestRemove(t *testing.T) {
	all := []string{"db", "shop", "web", "a1", "b2", "c3"}
	for _, tc := range []struct {
		names []string
		force bool
		left  []string
		class fault.Class // of the error, if there is one
		says  string      // in the error
	}{
		{[]string{"db"}, false, []string{"shop", "web", "a1", "b2", "c3"}, "", ""},
		{[]string{"web"}, false, all, fault.Usage, "image web: images are made of it: shop"},
		{[]string{"web"}, true, []string{"db", "shop", "a1", "b2", "c3"}, "", ""},
		{[]string{"web", "web", "db", "shop"}, false, []string{"a1", "b2", "c3"}, "", ""},
		{[]string{"debian-13"}, false, []string{"db", "shop", "web", "a1", "c3"}, "", ""},
		{[]string{"b2b2b2b2b2b2", "debian-13"}, false, []string{"db", "shop", "web", "a1", "c3"}, "", ""},
		{[]string{"stable"}, false, all, "", ""},
		{[]string{"debian-12", "db"}, false, []string{"shop", "web", "a1", "b2", "c3"}, "", ""},
		{[]string{"a1a1a1a1a1a1"}, false, all, fault.Usage, "base a1a1a1a1a1a1: images are made of it: db, web"},
		{[]string{"c3c3c3c3c3c3", "web"}, false, all, fault.Usage, "base c3c3c3c3c3c3: images are made of it: shop"},
		{[]string{"stable", "debian-12"}, false, all, fault.Usage, "images are made of it: db, web"},
		{[]string{"debian-12", "stable", "db"}, false, all, fault.Usage, "images are made of it: web"},
		{[]string{"debian-12", "stable", "web", "db", "shop"}, false, []string{"b2", "c3"}, "", ""},
		{[]string{"a1a1a1a1a1a1", "stable"}, true, []string{"db", "shop", "web", "b2", "c3"}, "", ""},
		{[]string{"db", "wbe"}, false, all, fault.NotFound, "image or base wbe"},
		{[]string{"debian-13", "wbe"}, true, all, fault.NotFound, "image or base wbe"},
	} {
		t.Run(strings.Join(tc.names, " "), func(t *testing.T) {
			w := stocked(t)
			_, err := w.Remove(t.Context(), tc.names, tc.force)
			if fault.Of(err) != tc.class || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %v, want one of class %q that says %q", err, tc.class, tc.says)
			}
			if left := w.left(t); !slices.Equal(left, tc.left) {
				t.Errorf("left are %q, want %q", left, tc.left)
			}
		})
	}
}
