package catalog_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/mutate/catalog"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

var made = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// full has every field set.
func full() *record.Material {
	return &record.Material{
		Parent:  record.Key(strings.Repeat("0a", 32)),
		Kind:    "run",
		Version: 3,
		Options: json.RawMessage(`{"script":"a && b > c","shell":"/bin/sh"}`),
		Env:     map[string]string{"A": "1", "B": "2"},
		Network: true,
		Inputs:  []record.Input{{Path: "etc/motd", Digest: "d1"}, {Path: "files", Digest: "d2"}},
	}
}

// with is full, changed.
func with(change func(*record.Material)) *record.Material {
	m := full()
	change(m)
	return m
}

func TestCommitThenFind(t *testing.T) {
	c := open(t)
	rec := record.Layer{
		Material: *full(), Name: "motd", Made: made, ParentMade: made.Add(-time.Minute), Took: 1500 * time.Millisecond,
	}
	k := key(t, full())
	if _, ok, err := c.FindLayer(k, 0, made); ok || err != nil {
		t.Fatalf("Find in an empty store = %v, %v", ok, err)
	}
	commit(t, c, k, rec)
	got, ok, err := c.FindLayer(k, 0, made)
	if !ok || err != nil {
		t.Fatalf("Find = %v, %v", ok, err)
	}
	if d := cmp.Diff(*reread(t, full()), *reread(t, &got.Material)); d != "" {
		t.Errorf("material (-want +got):\n%s", d)
	}
	got.Material, rec.Material = record.Material{}, record.Material{}
	if d := cmp.Diff(rec, got); d != "" {
		t.Errorf("record (-want +got):\n%s", d)
	}
	if b, err := os.ReadFile(c.Store.Path(store.Layers, string(k), "raw")); err != nil || string(b) != "disk of motd" {
		t.Errorf("the layer holds %q, %v", b, err)
	}
}

func TestCommitThatFailsLeavesNoLayer(t *testing.T) {
	c := open(t)
	k := key(t, full())
	err := c.CommitLayer(t.Context(), c.Store.Path("tmp", "missing", "raw"), k, record.Layer{Material: *full()})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Commit of nothing = %v", err)
	}
	if _, ok, err := c.FindLayer(k, 0, made); ok || err != nil {
		t.Errorf("Find = %v, %v", ok, err)
	}
}

func TestFindMissesWhatIsTooOld(t *testing.T) {
	c := open(t)
	k := key(t, full())
	commit(t, c, k, record.Layer{Material: *full(), Made: made})
	for _, tc := range []struct {
		name   string
		maxAge time.Duration
		age    time.Duration
		want   bool
	}{
		{"any age", 0, 1000 * time.Hour, true},
		{"young", time.Hour, time.Minute, true},
		{"just old enough", time.Hour, time.Hour, true},
		{"too old", time.Hour, time.Hour + 1, false},
		{"made by a clock that was ahead", time.Hour, -time.Minute, true},
	} {
		if _, ok, err := c.FindLayer(k, tc.maxAge, made.Add(tc.age)); ok != tc.want || err != nil {
			t.Errorf("%s: Find = %v, %v; want %v", tc.name, ok, err, tc.want)
		}
	}
}

// TestFindPassesOverABrokenRecord, says so, and has the layer made again.
func TestFindPassesOverABrokenRecord(t *testing.T) {
	c := open(t)
	var notes []string
	c.Note = func(text string) { notes = append(notes, text) }
	if err := os.WriteFile(c.Store.Path(store.Layers, "k", "json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := c.FindLayer("k", 0, made); ok || err != nil {
		t.Errorf("FindLayer = %v, %v; want none", ok, err)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "k.json") || !strings.Contains(notes[0], "made again") {
		t.Errorf("notes %q, want the record and what becomes of it", notes)
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
		{"one more input", func(m *record.Material) { m.Inputs = append(m.Inputs, record.Input{Path: "new", Digest: "x"}) }, "changed: input new"},
		{"one input less", func(m *record.Material) { m.Inputs = m.Inputs[1:] }, "changed: input etc/motd is gone"},
		{"an input that moved", func(m *record.Material) { m.Inputs[0].Path = "etc/issue" }, "changed: input etc/issue"},
		{"an input that is named twice", func(m *record.Material) { m.Inputs = append(m.Inputs, m.Inputs[0]) }, "new"},
		{"an option before env", func(m *record.Material) { options(`{"script":"other"}`)(m); m.Env = nil }, "changed: option script"},
		{"env before an input", func(m *record.Material) { m.Env = nil; m.Inputs = nil }, "changed: env"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, err := c.Why(with(tc.change)); got != tc.want || err != nil {
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
		if got, err := c.Why(m); got != want || err != nil {
			t.Errorf("Why = %q, %v; want %q", got, err, want)
		}
	}
}

func TestWhyComparesWithTheNewestAndSkipsTheBroken(t *testing.T) {
	c := open(t)
	if got, err := c.Why(full()); got != "new" || err != nil {
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
	if got, err := c.Why(full()); got != "changed: network" || err != nil {
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
		if got, err := c.Why(with(change)); got != "new" || err != nil {
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
	if got, err := c.Why(m); got != "changed: option script" || err != nil {
		t.Errorf("Why = %q, %v", got, err)
	}
}

func open(t *testing.T) catalog.Catalog {
	t.Helper()
	dir := t.TempDir()
	// A store that has its directories is not asked whether it can reflink.
	if err := os.Mkdir(filepath.Join(dir, string(store.Layers)), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), dir, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	return catalog.Catalog{Store: s, Note: func(string) {}}
}

func key(t *testing.T, m *record.Material) record.Key {
	t.Helper()
	k, err := m.Key()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// commit makes a layer that says which step made it.
func commit(t *testing.T, c catalog.Catalog, k record.Key, rec record.Layer) {
	t.Helper()
	run, err := c.Store.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	file := run.Path("work.raw")
	if err := os.WriteFile(file, []byte("disk of "+rec.Name), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.CommitLayer(t.Context(), file, k, rec); err != nil {
		t.Fatal(err)
	}
}

// reread is m as a record gives it back.
func reread(t *testing.T, m *record.Material) *record.Material {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var back record.Material
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	return &back
}
