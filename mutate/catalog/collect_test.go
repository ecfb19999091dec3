package catalog_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

// TestCollect tells what went and what that was, and a dry run the same without
// removing it.
func TestCollect(t *testing.T) {
	c := open(t)
	used, unused, loose := strings.Repeat("a1", 32), strings.Repeat("b2", 32), strings.Repeat("c3", 32)
	publish(t, c, store.Bases, used, record.Base{Digest: used, Names: []string{"debian-12"}})
	publish(t, c, store.Bases, unused, record.Base{Digest: unused, Names: []string{"debian-13"}})
	publish(t, c, store.Bases, loose, record.Base{Digest: loose, Names: []string{}, Source: "/x/loose.raw"})
	publish(t, c, store.Images, "web", record.Image{Name: "web", Base: used, Keys: []record.Key{"k"}})
	key := func(digit string) record.Key { return record.Key(strings.Repeat(digit, 64)) }
	prepare, first, gone := key("1"), key("2"), key("3")
	layer := func(parent record.Key, kind, name string) record.Layer {
		return record.Layer{Material: record.Material{Parent: parent, Kind: kind}, Name: name}
	}
	publish(t, c, store.Layers, "k", layer(record.Key(used), "prepare", ""))
	publish(t, c, store.Layers, string(prepare), layer(record.Key(unused), "prepare", ""))
	publish(t, c, store.Layers, string(first), layer(prepare, "copy", "site"))
	publish(t, c, store.Layers, string(gone), layer("not there", "run", ""))
	if err := os.WriteFile(c.Store.Kept("web"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		r, err := c.Collect(t.Context(), dry)
		if err != nil {
			t.Fatal(err)
		}
		var titles []string
		for _, l := range r.Layers {
			titles = append(titles, l.Title())
		}
		if want := []string{"prepare on debian-13", "site (copy) on debian-13", "run"}; !slices.Equal(titles, want) {
			t.Errorf("dry %t: layers %q, want %q", dry, titles, want)
		}
		if len(r.Bases) != 1 || r.Bases[0].Digest != loose || r.Bases[0].Source != "/x/loose.raw" {
			t.Errorf("dry %t: bases %+v", dry, r.Bases)
		}
		if want := []string{c.Store.Kept("web")}; !slices.Equal(r.Failed, want) {
			t.Errorf("dry %t: failed %q, want %q", dry, r.Failed, want)
		}
		if dry && r.Freed != 0 {
			t.Errorf("a dry run freed %d bytes", r.Freed)
		}
		if _, err := os.Stat(c.Store.Kept("web")); (err == nil) != dry {
			t.Errorf("dry %t: what was kept: %v", dry, err)
		}
	}
	for k, want := range map[store.Kind]int{store.Layers: 1, store.Bases: 2, store.Images: 1} {
		if names, err := c.Store.Names(k); err != nil || len(names) != want {
			t.Errorf("left of the %s are %q (%v), want %d", k, names, err, want)
		}
	}
	r, err := c.Collect(t.Context(), false)
	if err != nil || len(r.Layers)+len(r.Bases)+len(r.Failed) != 0 {
		t.Errorf("the second time it found %+v, %v", r, err)
	}
}
