package record_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/record"
)

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

// TestKeyIsGolden notices a change of the hash, which would make every layer
// of every store unreachable. Is it meant? Then change "imgmut layer v1" too.
func TestKeyIsGolden(t *testing.T) {
	for _, c := range []struct {
		name string
		m    *record.Material
		want record.Key
	}{
		{"every field", full(), "cb5cdf09a0d0cd9167c5c965f425dc5fa39c2be7f9993f49b2f3af6c7dfaf4e3"},
		{"few fields", &record.Material{Parent: "p", Kind: "prepare", Version: 1},
			"1e3b6c750b762093a7fe8fa409f690db5fe2401d5c68b43840a89beebcf5f12e"},
		{"of a step that has the disk", with(func(m *record.Material) { m.Boot = true }),
			"658219fb5ffc07d3ed965d43a86eba228078ef54efa286fc4649ff18c75e461f"},
	} {
		if got := key(t, c.m); got != c.want {
			t.Errorf("%s: key %s, want %s", c.name, got, c.want)
		}
	}
}

func TestKeyChangesWithEveryField(t *testing.T) {
	changes := map[string][]func(*record.Material){
		"Parent":  {func(m *record.Material) { m.Parent = "other" }},
		"Kind":    {func(m *record.Material) { m.Kind = "copy" }},
		"Version": {func(m *record.Material) { m.Version++ }},
		"Options": {
			func(m *record.Material) { m.Options = json.RawMessage(`{"script":"a && b > d","shell":"/bin/sh"}`) },
			func(m *record.Material) { m.Options = nil },
		},
		"Env": {
			func(m *record.Material) { m.Env["A"] = "2" },
			func(m *record.Material) { m.Env["C"] = "" },
			func(m *record.Material) { delete(m.Env, "A") },
			func(m *record.Material) { m.Env = nil },
		},
		"Network": {func(m *record.Material) { m.Network = false }},
		"Boot":    {func(m *record.Material) { m.Boot = true }},
		"Inputs": {
			func(m *record.Material) { m.Inputs[1].Digest = "d3" },
			func(m *record.Material) { m.Inputs[1].Path = "moved" },
			func(m *record.Material) { m.Inputs = m.Inputs[:1] },
			func(m *record.Material) { m.Inputs = nil },
		},
	}
	seen := map[record.Key]string{key(t, full()): "nothing"}
	for f := range reflect.TypeFor[record.Material]().Fields() {
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
	for name, m := range map[string]*record.Material{
		"indented options": with(func(m *record.Material) {
			m.Options = json.RawMessage("{\n  \"script\": \"a && b > c\",\n  \"shell\": \"/bin/sh\"\n}")
		}),
		"escaped options": with(func(m *record.Material) {
			m.Options = json.RawMessage(`{"script":"a \u0026\u0026 b \u003e c","shell":"/bin/sh"}`)
		}),
		"read back from a record": reread(t, full()),
	} {
		if got := key(t, m); got != want {
			t.Errorf("%s: key %s, want %s", name, got, want)
		}
	}
	if key(t, &record.Material{Env: map[string]string{}, Inputs: []record.Input{}}) != key(t, &record.Material{}) {
		t.Error("no environment and an empty one have two keys")
	}
	if _, err := (&record.Material{Kind: "run", Options: json.RawMessage("{")}).Key(); err == nil {
		t.Error("options that are no JSON have a key")
	}
}

func key(t *testing.T, m *record.Material) record.Key {
	t.Helper()
	k, err := m.Key()
	if err != nil {
		t.Fatal(err)
	}
	return k
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

// TestDifference: all options that differ are named, and what else does.
func TestDifference(t *testing.T) {
	options := func(text string) func(*record.Material) {
		return func(m *record.Material) { m.Options = json.RawMessage(text) }
	}
	for _, tc := range []struct {
		name   string
		change func(*record.Material)
		want   string
	}{
		{"nothing but its age", func(*record.Material) {}, "new"},
		{"a newer kind", func(m *record.Material) { m.Version = 4 }, "changed: imgmut's own run"},
		{"an option", options(`{"script":"other","shell":"/bin/sh"}`), "changed: option script"},
		{"two options", options(`{"script":"other","shell":"/bin/bash"}`), "changed: options script, shell"},
		{"the last option", options(`{"script":"a && b > c","shell":"/bin/bash"}`), "changed: option shell"},
		{"one more option", options(`{"dir":"/","script":"a && b > c","shell":"/bin/sh"}`), "changed: option dir"},
		{"one option less", options(`{"script":"a && b > c"}`), "changed: option shell"},
		{"options null", options(`null`), "changed: options script, shell"},
		{"options of another form", options(`["a"]`), "changed: options of another form"},
		{"no options", func(m *record.Material) { m.Options = nil }, "changed: options script, shell"},
		{"env", func(m *record.Material) { m.Env["A"] = "2" }, "changed: env"},
		{"no env", func(m *record.Material) { m.Env = nil }, "changed: env"},
		{"network", func(m *record.Material) { m.Network = false }, "changed: network"},
		{"boot", func(m *record.Material) { m.Boot = true }, "changed: boot"},
		{"an input", func(m *record.Material) { m.Inputs[1].Digest = "x" }, "changed: input files"},
		{"one more input", func(m *record.Material) { m.Inputs = append(m.Inputs, record.Input{Path: "new", Digest: "x"}) },
			"changed: input new"},
		{"one input less", func(m *record.Material) { m.Inputs = m.Inputs[1:] }, "changed: input etc/motd is gone"},
		{"an input that moved", func(m *record.Material) { m.Inputs[0].Path = "etc/issue" }, "changed: input etc/issue"},
		{"an input that is named twice", func(m *record.Material) { m.Inputs = append(m.Inputs, m.Inputs[0]) }, "new"},
		{"an option, env and the network", func(m *record.Material) {
			options(`{"script":"other","shell":"/bin/sh"}`)(m)
			m.Env, m.Network = nil, false
		},
			"changed: option script, env, network"},
		{"env and an input", func(m *record.Material) { m.Env = nil; m.Inputs = nil }, "changed: env, input etc/motd is gone"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := with(tc.change).Difference(full()); got != tc.want {
				t.Errorf("Difference = %q, want %q", got, tc.want)
			}
		})
	}
}

// TestDifferenceFromNoOptions: a record says null where the material has none.
func TestDifferenceFromNoOptions(t *testing.T) {
	old := &record.Material{Kind: "prepare", Version: 1, Options: json.RawMessage(`null`)}
	for want, m := range map[string]*record.Material{
		"new":                              {Kind: "prepare", Version: 1},
		"changed: option a":                {Kind: "prepare", Version: 1, Options: json.RawMessage(`{"a":1}`)},
		"changed: options of another form": {Kind: "prepare", Version: 1, Options: json.RawMessage(`{}`)},
	} {
		if got := m.Difference(old); got != want {
			t.Errorf("Difference = %q, want %q", got, want)
		}
	}
}
