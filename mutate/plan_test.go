package mutate

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/step"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

var planBase = &record.Base{Digest: strings.Repeat("ab", 32), Imported: day.Add(-time.Hour)}

// threeSteps is a recipe that reads two files in its second step.
func threeSteps() files {
	return files{
		"recipe.yaml": `version: 1
name: web
base: debian-12
steps:
  - name: first
    run: touch /a
    max-age: 7d
  - copy: {from: site, to: /srv}
  - name: last
    run: touch /c
    env: {LANG: C}
`,
		"site/a": "a",
		"site/b": "b",
	}
}

// edit is f with one text of the recipe replaced by another.
func (f files) edit(t *testing.T, old, fresh string) files {
	t.Helper()
	if strings.Count(f["recipe.yaml"], old) != 1 {
		t.Fatalf("%q is not once in the recipe", old)
	}
	f = maps.Clone(f)
	f["recipe.yaml"] = strings.Replace(f["recipe.yaml"], old, fresh, 1)
	return f
}

// with is f with a file more, or another.
func (f files) with(name, text string) files {
	f = maps.Clone(f)
	f[name] = text
	return f
}

func (f files) without(name string) files {
	f = maps.Clone(f)
	delete(f, name)
	return f
}

// planned plans the recipe among files in a directory of its own.
func (w *world) planned(t *testing.T, f files, base *record.Base, o ApplyOptions) *plan {
	t.Helper()
	dir := t.TempDir()
	r, steps := f.load(t, dir)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	p, err := w.plan(t.Context(), r, base, nil, steps, &step.Source{Root: root}, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// announced is what the user reads of a plan, a line for each step.
func (w *world) announced(t *testing.T, p *plan, o ApplyOptions) []string {
	t.Helper()
	w.said = nil
	if err := w.announce(p, o); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for i, e := range w.said {
		if e.Type != EventPlan || e.Recipe != p.recipe.Name || e.Step != i+1 || e.Steps != len(p.steps) {
			t.Errorf("announced %+v as event %d of %d", e, i+1, len(p.steps))
		}
		if e.Reused != (e.Reason == "") {
			t.Errorf("step %d is reused: %t, and the reason why not: %q", e.Step, e.Reused, e.Reason)
		}
		if e.Reused {
			e.Reason = "reused"
		}
		lines = append(lines, e.Reason)
	}
	return lines
}

// build makes the layers that the plan lacks, as an apply does, each a minute
// after the one before.
func (w *world) build(t *testing.T, p *plan) {
	t.Helper()
	if !p.ready {
		p.prepare.record = record.Layer{Material: p.prepare.material, Made: p.base.Imported, Settled: true}
		w.publish(t, store.Layers, string(p.prepare.key), p.prepare.record)
	}
	parent := p.prepare.record.Made
	for i := range p.steps {
		l := &p.steps[i]
		if i >= p.reused {
			w.now = w.now.Add(time.Minute)
			l.record = record.Layer{Material: l.material, Made: w.now, ParentMade: parent}
			w.made[l.key] = w.now
			w.publish(t, store.Layers, string(l.key), l.record)
		}
		parent = l.record.Made
	}
}

// TestLayersAreSharedByWhatTheyAreMadeOf says what decides a step's key, and so
// whether two recipes share its layer. The change is always to the first step
// or to what comes before it.
func TestLayersAreSharedByWhatTheyAreMadeOf(t *testing.T) {
	recipe := files{"recipe.yaml": "version: 1\nname: one\nbase: debian-12\nsteps:\n" +
		"  - name: site\n    copy: {from: site, to: /srv}\n    env: {A: b}\n", "site/index": "hello", "other": "x"}
	w := newWorld(t)
	want := w.planned(t, recipe, planBase, ApplyOptions{}).last()
	for _, tc := range []struct {
		name   string
		files  files
		base   string
		shared bool
	}{
		{"another directory and other times", recipe, "", true},
		{"another image", recipe.edit(t, "name: one", "name: two"), "", true},
		{"another name of the step", recipe.edit(t, "name: site", "name: pages"), "", true},
		{"an age", recipe.edit(t, "env:", "max-age: 1d\n    env:"), "", true},
		{"another name of the same base", recipe.edit(t, "base: debian-12", "base: bookworm"), "", true},
		{"a default said aloud", recipe.edit(t, "env:", "network: false\n    env:"), "", true},
		{"another base", recipe, strings.Repeat("ee", 32), false},
		{"another kind", recipe.edit(t, "copy: {from: site, to: /srv}", "run: site"), "", false},
		{"another option", recipe.edit(t, "/srv", "/var/www"), "", false},
		{"another variable", recipe.edit(t, "A: b", "A: c"), "", false},
		{"network", recipe.edit(t, "env:", "network: true\n    env:"), "", false},
		{"other bytes of an input", recipe.with("site/index", "world"), "", false},
		{"another name of an input", recipe.without("site/index").with("site/main", "hello"), "", false},
	} {
		base := planBase
		if tc.base != "" {
			base = &record.Base{Digest: tc.base}
		}
		if got := w.planned(t, tc.files, base, ApplyOptions{}).last(); (got == want) != tc.shared {
			t.Errorf("%s: the layer is shared: %t", tc.name, got == want)
		}
	}
}

// sink is a guest in which nothing arrives.
type sink struct{ step.Guest }

func (sink) Put(_ context.Context, write func(*tar.Writer) error) error {
	return write(tar.NewWriter(io.Discard))
}

// TestStepsSeeTheInputsOfTheirKey: what a step copies is compared with what the
// key was made from.
func TestStepsSeeTheInputsOfTheirKey(t *testing.T) {
	for _, changed := range []bool{false, true} {
		p := newWorld(t).planned(t, threeSteps(), planBase, ApplyOptions{})
		if changed {
			if err := p.source.Root.WriteFile("site/index", []byte("other"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		err := p.steps[1].decoded.Value.Apply(t.Context(), sink{}, p.source)
		if errors.Is(err, step.ErrInputChanged) != changed || err != nil && !changed {
			t.Errorf("changed: %t; Apply: %v", changed, err)
		}
	}
}

func TestKindsThatFetchHaveTheNetwork(t *testing.T) {
	recipe := files{"recipe.yaml": "version: 1\nname: n\nbase: b\nsteps:\n  - packages: {install: [vim]}\n" +
		"  - packages: {install: [vim]}\n    network: false\n  - run: 'true'\n  - run: 'true'\n    network: true\n"}
	p := newWorld(t).planned(t, recipe, planBase, ApplyOptions{})
	for i, want := range []bool{true, false, false, true} {
		if got := p.steps[i].material.Network; got != want {
			t.Errorf("step %d has the network: %t, want %t", i+1, got, want)
		}
	}
}

// TestMissingInputsAreAllReported, each at its step in the recipe.
func TestMissingInputsAreAllReported(t *testing.T) {
	dir := t.TempDir()
	f := files{"recipe.yaml": `version: 1
name: n
base: b
steps:
  - copy: {from: here, to: /a}
  - copy: {from: gone, to: /b}
  - copy: {from: pipe, to: /c}
  - copy: {from: lost, to: /d}
`, "here": ""}
	r, steps := f.load(t, dir)
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	w := newWorld(t)
	_, err = w.plan(t.Context(), r, planBase, nil, steps, &step.Source{Root: root}, ApplyOptions{})
	var problems recipes.Problems
	if !errors.As(err, &problems) || len(problems) != 3 {
		t.Fatalf("error %v, want three problems", err)
	}
	for i, want := range []struct{ line, name string }{{":6:", "gone"}, {":7:", "pipe"}, {":8:", "lost"}} {
		if text := problems[i].Error(); !strings.Contains(text, want.line) || !strings.Contains(text, want.name) {
			t.Errorf("problem %q, want one at line %s of %s", text, want.line, want.name)
		}
	}
}

// TestPlanEndsWithItsContext: digests of inputs can take long.
func TestPlanEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	r, steps := threeSteps().load(t, dir)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	_, err = newWorld(t).plan(ctx, r, planBase, nil, steps, &step.Source{Root: root}, ApplyOptions{})
	if !errors.Is(err, enough) {
		t.Errorf("error %v, want the cause of the end", err)
	}
}

// TestIdentityThatCannotBe: what a base cannot be given is refused before anything
// runs, where the recipe asks for it.
func TestIdentityThatCannotBe(t *testing.T) {
	base := &record.Base{Digest: planBase.Digest, Layout: disk.Layout{Table: disk.GPT, Volumes: []disk.Volume{
		{Slot: 1, Role: disk.Root, FS: "ext4", UUID: "aaaaaaaa-0000-4000-8000-000000000001", Label: "root"},
		{Slot: 2, FS: "erofs", UUID: "aaaaaaaa-0000-4000-8000-000000000002"},
	}}}
	for identity, want := range map[string]string{
		"{filesystems: true}":                      "identity.filesystems: partition 2 has erofs, of which nothing changes the UUID",
		`{labels: "{name}-that-is-long-{label}"}`:  "identity.labels: partition 1 would have the label web-that-is-long-root",
		`{labels: "{name}-{label}", types: keep}`:  "",
		`{filesystems: false, labels: "x{label}"}`: "",
	} {
		r, _ := threeSteps().edit(t, "name: web", "name: web\nidentity: "+identity).load(t, t.TempDir())
		err := checkIdentity(r, &base.Layout)
		if (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", identity, err, want)
		}
	}
}
