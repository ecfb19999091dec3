package layer_test

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/layer"
	"github.com/imgmut/imgmut/mutate/step"
	"github.com/imgmut/imgmut/mutate/store"
)

var made = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// full has every field set.
func full() *layer.Material {
	return &layer.Material{
		Parent:  layer.Key(strings.Repeat("0a", 32)),
		Kind:    "run",
		Version: 3,
		Options: json.RawMessage(`{"script":"a && b > c","shell":"/bin/sh"}`),
		Env:     map[string]string{"A": "1", "B": "2"},
		Network: true,
		Inputs:  []step.Input{{Path: "etc/motd", Digest: "d1"}, {Path: "files", Digest: "d2"}},
	}
}

// with is full, changed.
func with(change func(*layer.Material)) *layer.Material {
	m := full()
	change(m)
	return m
}

// TestKeyIsGolden notices a change of the hash, which would make every layer
// of every store unreachable. Is it meant? Then change "imgmut layer v1" too.
func TestKeyIsGolden(t *testing.T) {
	for _, c := range []struct {
		name string
		m    *layer.Material
		want layer.Key
	}{
		{"every field", full(), "cb5cdf09a0d0cd9167c5c965f425dc5fa39c2be7f9993f49b2f3af6c7dfaf4e3"},
		{"few fields", &layer.Material{Parent: "p", Kind: "prepare", Version: 1}, "1e3b6c750b762093a7fe8fa409f690db5fe2401d5c68b43840a89beebcf5f12e"},
	} {
		if got := key(t, c.m); got != c.want {
			t.Errorf("%s: key %s, want %s", c.name, got, c.want)
		}
	}
}

func TestKeyChangesWithEveryField(t *testing.T) {
	changes := map[string][]func(*layer.Material){
		"Parent":  {func(m *layer.Material) { m.Parent = "other" }},
		"Kind":    {func(m *layer.Material) { m.Kind = "copy" }},
		"Version": {func(m *layer.Material) { m.Version++ }},
		"Options": {
			func(m *layer.Material) { m.Options = json.RawMessage(`{"script":"a && b > d","shell":"/bin/sh"}`) },
			func(m *layer.Material) { m.Options = nil },
		},
		"Env": {
			func(m *layer.Material) { m.Env["A"] = "2" },
			func(m *layer.Material) { m.Env["C"] = "" },
			func(m *layer.Material) { delete(m.Env, "A") },
			func(m *layer.Material) { m.Env = nil },
		},
		"Network": {func(m *layer.Material) { m.Network = false }},
		"Inputs": {
			func(m *layer.Material) { m.Inputs[1].Digest = "d3" },
			func(m *layer.Material) { m.Inputs[1].Path = "moved" },
			func(m *layer.Material) { m.Inputs = m.Inputs[:1] },
			func(m *layer.Material) { m.Inputs = nil },
		},
	}
	seen := map[layer.Key]string{key(t, full()): "nothing"}
	for f := range reflect.TypeFor[layer.Material]().Fields() {
		if len(changes[f.Name]) == 0 {
			t.Errorf("no test changes %s", f.Name)
		}
		for _, change := range changes[f.Name] {
			k := key(t, with(change))
			if other, ok := seen[k]; ok {
				t.Errorf("changing %s gives the key that changing %s gives", f.Name, other)
			}
			seen[k] = f.Name
		}
	}
}

func TestKeyIsOfMeaningNotForm(t *testing.T) {
	want := key(t, full())
	for name, m := range map[string]*layer.Material{
		"indented options": with(func(m *layer.Material) {
			m.Options = json.RawMessage("{\n  \"script\": \"a && b > c\",\n  \"shell\": \"/bin/sh\"\n}")
		}),
		"escaped options": with(func(m *layer.Material) {
			m.Options = json.RawMessage(`{"script":"a \u0026\u0026 b \u003e c","shell":"/bin/sh"}`)
		}),
		"read back from a record": reread(t, full()),
	} {
		if got := key(t, m); got != want {
			t.Errorf("%s: key %s, want %s", name, got, want)
		}
	}
	if key(t, &layer.Material{Env: map[string]string{}, Inputs: []step.Input{}}) != key(t, &layer.Material{}) {
		t.Error("no environment and an empty one have two keys")
	}
	if _, err := (&layer.Material{Kind: "run", Options: json.RawMessage("{")}).Key(); err == nil {
		t.Error("options that are no JSON have a key")
	}
}

func TestCommitThenFind(t *testing.T) {
	s := open(t)
	rec := layer.Record{
		Material: *full(), Name: "motd", Made: made, ParentMade: made.Add(-time.Minute), Took: 1500 * time.Millisecond,
	}
	k := key(t, full())
	if _, ok, err := layer.Find(s, k, 0, made); ok || err != nil {
		t.Fatalf("Find in an empty store = %v, %v", ok, err)
	}
	commit(t, s, k, rec)
	got, ok, err := layer.Find(s, k, 0, made)
	if !ok || err != nil {
		t.Fatalf("Find = %v, %v", ok, err)
	}
	if d := cmp.Diff(*reread(t, full()), *reread(t, &got.Material)); d != "" {
		t.Errorf("material (-want +got):\n%s", d)
	}
	got.Material, rec.Material = layer.Material{}, layer.Material{}
	if d := cmp.Diff(rec, got); d != "" {
		t.Errorf("record (-want +got):\n%s", d)
	}
	if b, err := os.ReadFile(s.Path(store.Layers, string(k), "raw")); err != nil || string(b) != "disk of motd" {
		t.Errorf("the layer holds %q, %v", b, err)
	}
}

func TestCommitThatFailsLeavesNoLayer(t *testing.T) {
	s := open(t)
	k := key(t, full())
	err := layer.Commit(t.Context(), s, s.Path("tmp", "missing", "raw"), k, layer.Record{Material: *full()})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Commit of nothing = %v", err)
	}
	if _, ok, err := layer.Find(s, k, 0, made); ok || err != nil {
		t.Errorf("Find = %v, %v", ok, err)
	}
}

func TestFindMissesWhatIsTooOld(t *testing.T) {
	s := open(t)
	k := key(t, full())
	commit(t, s, k, layer.Record{Material: *full(), Made: made})
	for _, c := range []struct {
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
		if _, ok, err := layer.Find(s, k, c.maxAge, made.Add(c.age)); ok != c.want || err != nil {
			t.Errorf("%s: Find = %v, %v; want %v", c.name, ok, err, c.want)
		}
	}
}

func TestFindTellsOfABrokenRecord(t *testing.T) {
	s := open(t)
	if err := os.WriteFile(s.Path(store.Layers, "k", "json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := layer.Find(s, "k", 0, made); ok || err == nil {
		t.Errorf("Find = %v, %v; want an error", ok, err)
	}
}

func TestWhy(t *testing.T) {
	options := func(text string) func(*layer.Material) {
		return func(m *layer.Material) { m.Options = json.RawMessage(text) }
	}
	s := open(t)
	commit(t, s, key(t, full()), layer.Record{Material: *full(), Made: made})
	for _, c := range []struct {
		name   string
		change func(*layer.Material)
		want   string
	}{
		{"another parent", func(m *layer.Material) { m.Parent = "other" }, "new"},
		{"another kind", func(m *layer.Material) { m.Kind = "copy" }, "new"},
		{"nothing but its age", func(*layer.Material) {}, "new"},
		{"a newer kind", func(m *layer.Material) { m.Version = 4 }, "changed: imgmut's own run"},
		{"an option", options(`{"script":"other","shell":"/bin/sh"}`), "changed: option script"},
		{"two options", options(`{"script":"other","shell":"/bin/bash"}`), "changed: option script"},
		{"the last option", options(`{"script":"a && b > c","shell":"/bin/bash"}`), "changed: option shell"},
		{"one more option", options(`{"dir":"/","script":"a && b > c","shell":"/bin/sh"}`), "changed: option dir"},
		{"one option less", options(`{"script":"a && b > c"}`), "changed: option shell"},
		{"options null", options(`null`), "changed: option script"},
		{"options of another form", options(`["a"]`), "changed: option of another form"},
		{"no options", func(m *layer.Material) { m.Options = nil }, "changed: option script"},
		{"env", func(m *layer.Material) { m.Env["A"] = "2" }, "changed: env"},
		{"no env", func(m *layer.Material) { m.Env = nil }, "changed: env"},
		{"network", func(m *layer.Material) { m.Network = false }, "changed: network"},
		{"an input", func(m *layer.Material) { m.Inputs[1].Digest = "x" }, "changed: input files"},
		{"one more input", func(m *layer.Material) { m.Inputs = append(m.Inputs, step.Input{Path: "new", Digest: "x"}) }, "changed: input new"},
		{"one input less", func(m *layer.Material) { m.Inputs = m.Inputs[1:] }, "changed: input etc/motd is gone"},
		{"an input that moved", func(m *layer.Material) { m.Inputs[0].Path = "etc/issue" }, "changed: input etc/issue"},
		{"an input that is named twice", func(m *layer.Material) { m.Inputs = append(m.Inputs, m.Inputs[0]) }, "new"},
		{"an option before env", func(m *layer.Material) { options(`{"script":"other"}`)(m); m.Env = nil }, "changed: option script"},
		{"env before an input", func(m *layer.Material) { m.Env = nil; m.Inputs = nil }, "changed: env"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := layer.Why(s, with(c.change)); got != c.want || err != nil {
				t.Errorf("Why = %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

// TestWhyWithoutOptions: a record says null where the material has none.
func TestWhyWithoutOptions(t *testing.T) {
	s := open(t)
	old := &layer.Material{Parent: "p", Kind: "prepare", Version: 1}
	commit(t, s, key(t, old), layer.Record{Material: *old, Made: made})
	for want, m := range map[string]*layer.Material{
		"changed: network":  {Parent: "p", Kind: "prepare", Version: 1, Network: true},
		"changed: option a": {Parent: "p", Kind: "prepare", Version: 1, Options: json.RawMessage(`{"a":1}`)},
	} {
		if got, err := layer.Why(s, m); got != want || err != nil {
			t.Errorf("Why = %q, %v; want %q", got, err, want)
		}
	}
}

func TestWhyComparesWithTheNewestAndSkipsTheBroken(t *testing.T) {
	s := open(t)
	if got, err := layer.Why(s, full()); got != "new" || err != nil {
		t.Errorf("in an empty store: %q, %v", got, err)
	}
	if err := os.WriteFile(s.Path(store.Layers, "k", "json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	for i, change := range []func(*layer.Material){
		func(m *layer.Material) { m.Version = 1 },
		func(m *layer.Material) { m.Network = false },
		func(m *layer.Material) { m.Env = nil },
	} {
		m := with(change)
		commit(t, s, key(t, m), layer.Record{Material: *m, Made: made.Add([]time.Duration{0, 2, 1}[i] * time.Hour)})
	}
	if got, err := layer.Why(s, full()); got != "changed: network" || err != nil {
		t.Errorf("Why = %q, %v; want what the newest lacks", got, err)
	}
}

func open(t *testing.T) *store.Store {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Reflink)
	s, err := store.Open(t.Context(), fixtures.ReflinkDir(t), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func key(t *testing.T, m *layer.Material) layer.Key {
	t.Helper()
	k, err := m.Key()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// commit makes a layer that says which step made it.
func commit(t *testing.T, s *store.Store, k layer.Key, rec layer.Record) {
	t.Helper()
	run, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	file := run.Path("work.raw")
	if err := os.WriteFile(file, []byte("disk of "+rec.Name), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := layer.Commit(t.Context(), s, file, k, rec); err != nil {
		t.Fatal(err)
	}
}

// reread is m as a record gives it back.
func reread(t *testing.T, m *layer.Material) *layer.Material {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var back layer.Material
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	return &back
}
