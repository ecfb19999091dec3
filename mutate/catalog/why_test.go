package catalog_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/catalog"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

// alone is the chain of an image that was never made: a layer and nothing else.
func alone(m *record.Material) catalog.Wanted {
	return catalog.Wanted{Image: "never", Base: "debian-12", Chain: []*record.Material{m}}
}

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

func TestWhy(t *testing.T) {
	options := func(text string) func(*record.Material) {
		return func(m *record.Material) { m.Options = json.RawMessage(text) }
	}
	c := open(t)
	commit(t, c, key(t, full()), record.Layer{Material: *full(), Made: made})
	for _, tc := range []struct {
		name   string
		change func(*record.Material)
		want   string
	}{
		{"another parent", func(m *record.Material) { m.Parent = "other" }, "new"},
		{"another kind", func(m *record.Material) { m.Kind = "copy" }, "new"},
		{"nothing but its age", func(*record.Material) {}, "new"},
		{"a newer kind", func(m *record.Material) { m.Version = 4 }, "changed: imgmut's own run"},
		{"an option", options(`{"script":"other","shell":"/bin/sh"}`), "changed: option script"},
		{"two options", options(`{"script":"other","shell":"/bin/bash"}`), "changed: option script"},
		{"the last option", options(`{"script":"a && b > c","shell":"/bin/bash"}`), "changed: option shell"},
		{"one more option", options(`{"dir":"/","script":"a && b > c","shell":"/bin/sh"}`), "changed: option dir"},
		{"one option less", options(`{"script":"a && b > c"}`), "changed: option shell"},
		{"options null", options(`null`), "changed: option script"},
		{"options of another form", options(`["a"]`), "changed: option of another form"},
		{"no options", func(m *record.Material) { m.Options = nil }, "changed: option script"},
		{"env", func(m *record.Material) { m.Env["A"] = "2" }, "changed: env"},
		{"no env", func(m *record.Material) { m.Env = nil }, "changed: env"},
		{"network", func(m *record.Material) { m.Network = false }, "changed: network"},
		{"an input", func(m *record.Material) { m.Inputs[1].Digest = "x" }, "changed: input files"},
		{"one more input", func(m *record.Material) { m.Inputs = append(m.Inputs, record.Input{Path: "new", Digest: "x"}) },
			"changed: input new"},
		{"one input less", func(m *record.Material) { m.Inputs = m.Inputs[1:] }, "changed: input etc/motd is gone"},
		{"an input that moved", func(m *record.Material) { m.Inputs[0].Path = "etc/issue" }, "changed: input etc/issue"},
		{"an input that is named twice", func(m *record.Material) { m.Inputs = append(m.Inputs, m.Inputs[0]) }, "new"},
		{"an option before env", func(m *record.Material) { options(`{"script":"other"}`)(m); m.Env = nil },
			"changed: option script"},
		{"env before an input", func(m *record.Material) { m.Env = nil; m.Inputs = nil }, "changed: env"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, err := c.Why(alone(with(tc.change)), 0); got != tc.want || err != nil {
				t.Errorf("Why = %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

// TestWhyWithoutOptions: a record says null where the material has none.
func TestWhyWithoutOptions(t *testing.T) {
	c := open(t)
	old := &record.Material{Parent: "p", Kind: "prepare", Version: 1}
	commit(t, c, key(t, old), record.Layer{Material: *old, Made: made})
	for want, m := range map[string]*record.Material{
		"changed: network":  {Parent: "p", Kind: "prepare", Version: 1, Network: true},
		"changed: option a": {Parent: "p", Kind: "prepare", Version: 1, Options: json.RawMessage(`{"a":1}`)},
	} {
		if got, err := c.Why(alone(m), 0); got != want || err != nil {
			t.Errorf("Why = %q, %v; want %q", got, err, want)
		}
	}
}

func TestWhyComparesWithTheNewestAndSkipsTheBroken(t *testing.T) {
	c := open(t)
	if got, err := c.Why(alone(full()), 0); got != "new" || err != nil {
		t.Errorf("in an empty store: %q, %v", got, err)
	}
	if err := os.WriteFile(c.Store.Path(store.Layers, "k", "json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	for i, change := range []func(*record.Material){
		func(m *record.Material) { m.Version = 1 },
		func(m *record.Material) { m.Network = false },
		func(m *record.Material) { m.Env = nil },
	} {
		m := with(change)
		commit(t, c, key(t, m), record.Layer{Material: *m, Made: made.Add([]time.Duration{0, 2, 1}[i] * time.Hour)})
	}
	if got, err := c.Why(alone(full()), 0); got != "changed: network" || err != nil {
		t.Errorf("Why = %q, %v; want what the newest lacks", got, err)
	}
}

// TestWhyComparesSiblings: what another kind of step made of that parent, or
// that kind of another, explains nothing.
func TestWhyComparesSiblings(t *testing.T) {
	c := open(t)
	commit(t, c, key(t, full()), record.Layer{Material: *full(), Made: made})
	for name, change := range map[string]func(m *record.Material){
		"another kind":   func(m *record.Material) { m.Kind = "copy" },
		"another parent": func(m *record.Material) { m.Parent = "other" },
	} {
		if got, err := c.Why(alone(with(change)), 0); got != "new" || err != nil {
			t.Errorf("%s: Why = %q, %v; want new", name, got, err)
		}
	}
}

// TestWhyOfARecordThatSaysLess: a record need not have all fields.
func TestWhyOfARecordThatSaysLess(t *testing.T) {
	c := open(t)
	run, err := c.Store.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	file := run.Path("work.raw")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m := full()
	less := map[string]any{"material": map[string]any{"Parent": m.Parent, "Kind": m.Kind, "Version": m.Version}}
	if err := c.Store.Publish(t.Context(), file, store.Layers, "k", less, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Why(alone(m), 0); got != "changed: option script" || err != nil {
		t.Errorf("Why = %q, %v", got, err)
	}
}
