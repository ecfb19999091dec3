package catalog_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/catalog"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

// chain is what an image is made of, by its base and words like run=a, copy=b.
func chain(t *testing.T, base, steps string) []*record.Material {
	t.Helper()
	all := []*record.Material{{Parent: record.Key(base), Kind: "prepare", Version: 1}}
	for _, word := range strings.Fields(steps) {
		kind, option, _ := strings.Cut(word, "=")
		all = append(all, &record.Material{
			Parent: key(t, all[len(all)-1]), Kind: kind, Version: 1, Options: json.RawMessage(`{"it":"` + option + `"}`),
		})
	}
	return all
}

const oldBase, newBase = "4186a9e19eb6aaaa", "9baecc10ffeebbbb"

// TestWhyByTheLastChain compares with what the image was made of, though other
// images have newer layers beside those.
func TestWhyByTheLastChain(t *testing.T) {
	for _, tc := range []struct {
		name, was, now string
		step           int // that is missing
		want           string
	}{
		{"a changed step", "run=a run=b", "run=a run=c", 2, "changed: option it"},
		{"a changed first step", "run=a run=b", "run=c run=b", 1, "changed: option it"},
		{"a step more", "run=a run=b", "run=a run=b run=c", 3, "new"},
		{"a step put in", "run=a run=b", "run=a run=c run=b", 2, "new"},
		{"after a step put in, which others have", "run=a run=b", "run=a run=c run=b", 3, "step 2 is new"},
		{"another kind of step", "run=a copy=b", "run=a run=b", 2, "new"},
		{"a step taken out", "run=a run=b run=c", "run=a run=c", 2, "was step 3"},
		{"two steps in another order", "run=a run=b", "run=b run=a", 1, "was step 2"},
		{"the second of them", "run=a run=b", "run=b run=a", 2, "step 1 was step 2"},
		{"after a changed step that others have", "run=a run=b", "run=c run=b", 2, "step 1 changed: option it"},
		{"changed after a changed step", "run=a run=b", "run=c run=d", 2, "changed: option it"},
		{"nothing", "run=a run=b", "run=a run=b", 2, "its layer is gone"},
		{"a step of an image that had none", "", "run=a", 1, "new"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := open(t)
			image := record.Image{Name: "web", Base: oldBase, BaseName: "debian-12"}
			for i, m := range chain(t, oldBase, tc.was) {
				image.Keys = append(image.Keys, key(t, m))
				commit(t, c, key(t, m), record.Layer{Material: *m, Made: made.Add(time.Duration(i))})
			}
			other := *chain(t, oldBase, "run=a run=b")[1]
			other.Network = true // would be the difference, if this were asked for
			commit(t, c, key(t, &other), record.Layer{Material: other, Made: made.Add(time.Hour)})
			publish(t, c, store.Images, image.Name, image)
			now := chain(t, oldBase, tc.now)
			err := c.Store.Remove(t.Context(), store.Layers, string(key(t, now[tc.step])))
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				t.Fatal(err)
			}
			w := catalog.Wanted{Image: "web", Base: "debian-12", Chain: now}
			if got, err := c.Why(w, tc.step); got != tc.want || err != nil {
				t.Errorf("Why = %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

// TestWhyOfTheBase: another base explains all, whatever else is changed.
func TestWhyOfTheBase(t *testing.T) {
	for _, tc := range []struct{ was, now, digest, want string }{
		{"debian-12", "debian-12", newBase, "base debian-12: 4186a9e19eb6 → 9baecc10ffee"},
		{"debian-12", "debian-13", newBase, "base debian-12 4186a9e19eb6 → debian-13 9baecc10ffee"},
		{"", "disk.raw", newBase, "base disk.raw: 4186a9e19eb6 → 9baecc10ffee"}, // named by path
		{"debian-12", "bookworm", oldBase, "changed: option it"},
	} {
		c := open(t)
		image := record.Image{Name: "web", Base: oldBase, BaseName: tc.was}
		for _, m := range chain(t, oldBase, "run=a") {
			image.Keys = append(image.Keys, key(t, m))
			commit(t, c, key(t, m), record.Layer{Material: *m, Made: made})
		}
		publish(t, c, store.Images, image.Name, image)
		w := catalog.Wanted{Image: "web", Base: tc.now, Chain: chain(t, tc.digest, "run=b")}
		if got, err := c.Why(w, 1); got != tc.want || err != nil {
			t.Errorf("%s, then %s: Why = %q, %v; want %q", tc.was, tc.now, got, err, tc.want)
		}
	}
}

// TestWhyOfImgmutItself: a new way to prepare a base makes all layers anew.
func TestWhyOfImgmutItself(t *testing.T) {
	c := open(t)
	image := record.Image{Name: "web", Base: oldBase}
	for _, m := range chain(t, oldBase, "run=a") {
		image.Keys = append(image.Keys, key(t, m))
		commit(t, c, key(t, m), record.Layer{Material: *m, Made: made})
	}
	publish(t, c, store.Images, image.Name, image)
	now := chain(t, oldBase, "run=a")
	now[0].Version = 2
	now[1].Parent = key(t, now[0])
	got, err := c.Why(catalog.Wanted{Image: "web", Chain: now}, 1)
	if want := "changed: imgmut's own prepare"; got != want || err != nil {
		t.Errorf("Why = %q, %v; want %q", got, err, want)
	}
}

// TestWhyWithoutTheOldLayer: of a layer that is gone no more is known than that
// this is another.
func TestWhyWithoutTheOldLayer(t *testing.T) {
	c := open(t)
	image := record.Image{Name: "web", Base: oldBase}
	for _, m := range chain(t, oldBase, "run=a") {
		image.Keys = append(image.Keys, key(t, m))
	}
	publish(t, c, store.Images, image.Name, image)
	got, err := c.Why(catalog.Wanted{Image: "web", Chain: chain(t, oldBase, "run=b")}, 1)
	if got != "changed" || err != nil {
		t.Errorf("Why = %q, %v", got, err)
	}
}

// TestWhyOfAnImageThatWasNeverMade: what another image made of the same parent by
// the same kind of step explains nothing.
func TestWhyOfAnImageThatWasNeverMade(t *testing.T) {
	c := open(t)
	for _, m := range chain(t, oldBase, "run=a") {
		commit(t, c, key(t, m), record.Layer{Material: *m, Made: made})
	}
	w := catalog.Wanted{Image: "never", Base: "debian-12", Chain: chain(t, oldBase, "run=b")}
	if got, err := c.Why(w, 1); got != "new" || err != nil {
		t.Errorf("Why = %q, %v; want new", got, err)
	}
}

// TestWhyOfARecordThatSaysLess: a record need not have all fields.
func TestWhyOfARecordThatSaysLess(t *testing.T) {
	c := open(t)
	now := chain(t, oldBase, "run=a")
	less := map[string]any{"material": map[string]any{"Parent": now[1].Parent, "Kind": "run", "Version": 1}}
	publish(t, c, store.Layers, "k", less)
	publish(t, c, store.Images, "web", record.Image{Name: "web", Base: oldBase, Keys: []record.Key{key(t, now[0]), "k"}})
	got, err := c.Why(catalog.Wanted{Image: "web", Chain: now}, 1)
	if got != "changed: option it" || err != nil {
		t.Errorf("Why = %q, %v", got, err)
	}
}
