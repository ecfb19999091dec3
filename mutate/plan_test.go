package mutate

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
	p, err := w.plan(t.Context(), r, base, steps, &step.Source{Root: root}, o)
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
			w.publish(t, store.Layers, string(l.key), l.record)
		}
		parent = l.record.Made
	}
}

// TestPlanSaysWhatRunsAndWhy plans a changed recipe where the layers of the
// unchanged one are.
func TestPlanSaysWhatRunsAndWhy(t *testing.T) {
	before := threeSteps()
	for _, tc := range []struct {
		name  string
		files files
		o     ApplyOptions
		later time.Duration // after the layers were made
		base  *record.Base
		want  []string
	}{
		{name: "nothing is changed", files: before, want: []string{"reused", "reused", "reused"}},
		{name: "another name of the image", files: before.edit(t, "name: web", "name: shop"),
			want: []string{"reused", "reused", "reused"}},
		{name: "another name of a step", files: before.edit(t, "name: last", "name: end"),
			want: []string{"reused", "reused", "reused"}},
		{name: "a comment", files: before.edit(t, "steps:", "# the steps\nsteps:"),
			want: []string{"reused", "reused", "reused"}},
		{name: "a file that no step names", files: before.with("README", "r"),
			want: []string{"reused", "reused", "reused"}},
		{name: "no last step", files: before.edit(t, "  - name: last\n    run: touch /c\n    env: {LANG: C}\n", ""),
			want: []string{"reused", "reused"}},
		{name: "one step more", files: before.edit(t, "env: {LANG: C}\n", "env: {LANG: C}\n  - run: touch /d\n"),
			want: []string{"reused", "reused", "reused", "new"}},
		{name: "one step less in the middle", files: before.edit(t, "  - copy: {from: site, to: /srv}\n", ""),
			want: []string{"reused", "new"}},
		{name: "another option", files: before.edit(t, "to: /srv", "to: /var/www"),
			want: []string{"reused", "changed: option to", "follows step 2"}},
		{name: "another first step", files: before.edit(t, "touch /a", "touch /b"),
			want: []string{"changed: option script", "follows step 1", "follows step 1"}},
		{name: "another environment", files: before.edit(t, "LANG: C", "LANG: C.UTF-8"),
			want: []string{"reused", "reused", "changed: env"}},
		{name: "network", files: before.edit(t, "env: {LANG: C}", "env: {LANG: C}\n    network: true"),
			want: []string{"reused", "reused", "changed: network"}},
		{name: "the network that the step has anyway",
			files: before.edit(t, "env: {LANG: C}", "env: {LANG: C}\n    network: false"),
			want:  []string{"reused", "reused", "reused"}},
		{name: "another input", files: before.with("site/b", "B"),
			want: []string{"reused", "changed: input site/b", "follows step 2"}},
		{name: "an input more", files: before.with("site/c", "c"),
			want: []string{"reused", "changed: input site/c", "follows step 2"}},
		{name: "an input less", files: before.without("site/a"),
			want: []string{"reused", "changed: input site/a is gone", "follows step 2"}},
		{name: "no cache", files: before, o: ApplyOptions{NoCache: true},
			want: []string{"no cache", "no cache", "no cache"}},
		{name: "refresh by name", files: before, o: ApplyOptions{Refresh: []string{"last"}},
			want: []string{"reused", "reused", "refresh"}},
		{name: "refresh by kind", files: before, o: ApplyOptions{Refresh: []string{"run"}},
			want: []string{"refresh", "follows step 1", "refresh"}},
		{name: "refresh of two", files: before, o: ApplyOptions{Refresh: []string{"last", "copy"}},
			want: []string{"reused", "refresh", "refresh"}},
		{name: "as old as may be", files: before, later: 7 * 24 * time.Hour, want: []string{"reused", "reused", "reused"}},
		{name: "too old", files: before, later: 7*24*time.Hour + 1,
			want: []string{"older than 7d", "follows step 1", "follows step 1"}},
		{name: "a shorter age", files: before.edit(t, "max-age: 7d", "max-age: 36h"), later: 37 * time.Hour,
			want: []string{"older than 36h0m0s", "follows step 1", "follows step 1"}},
		{name: "an age of any step",
			files: before.edit(t, "max-age: 7d", "max-age: 1h").edit(t, "    env:", "    max-age: 30m\n    env:"),
			later: 45 * time.Minute, want: []string{"reused", "reused", "older than 30m0s"}},
		{name: "another base", files: before, base: &record.Base{Digest: strings.Repeat("cd", 32), Imported: day},
			want: []string{"new", "follows step 1", "follows step 1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			first := w.planned(t, before, planBase, ApplyOptions{})
			all := []string{"new", "follows step 1", "follows step 1"}
			if got := w.announced(t, first, ApplyOptions{}); !slices.Equal(got, all) {
				t.Fatalf("in an empty store: %q", got)
			}
			w.build(t, first)
			w.now = first.steps[0].record.Made.Add(tc.later)
			base := planBase
			if tc.base != nil {
				base = tc.base
			}
			p := w.planned(t, tc.files, base, tc.o)
			if got := w.announced(t, p, tc.o); !slices.Equal(got, tc.want) {
				t.Errorf("announced %q, want %q", got, tc.want)
			}
		})
	}
}

// TestStepsRunAgainAfterARefresh is about layers whose key is unchanged, but
// whose parent was made again since.
func TestStepsRunAgainAfterARefresh(t *testing.T) {
	w := newWorld(t)
	w.build(t, w.planned(t, threeSteps(), planBase, ApplyOptions{}))
	shorter := threeSteps().edit(t, "  - name: last\n    run: touch /c\n    env: {LANG: C}\n", "")
	o := ApplyOptions{Refresh: []string{"copy"}}
	w.build(t, w.planned(t, shorter, planBase, o))

	p := w.planned(t, threeSteps(), planBase, ApplyOptions{})
	want := []string{"reused", "reused", "its parent was refreshed"}
	if got := w.announced(t, p, ApplyOptions{}); !slices.Equal(got, want) {
		t.Errorf("announced %q, want %q", got, want)
	}
	w.build(t, p)
	p = w.planned(t, threeSteps(), planBase, ApplyOptions{})
	want = []string{"reused", "reused", "reused"}
	if got := w.announced(t, p, ApplyOptions{}); !slices.Equal(got, want) {
		t.Errorf("announced %q after it was built", got)
	}
}

// TestPlanStopsAtTheFirstGap is about layers that somebody removed: what is
// above one that is missing is of no use.
func TestPlanStopsAtTheFirstGap(t *testing.T) {
	for _, tc := range []struct {
		name   string
		remove func(p *plan) record.Key
		want   []string
	}{
		{"the layer below the steps", func(p *plan) record.Key { return p.prepare.key },
			[]string{"new", "follows step 1", "follows step 1"}},
		{"of the first step", func(p *plan) record.Key { return p.steps[0].key },
			[]string{"new", "follows step 1", "follows step 1"}},
		{"of a step in the middle", func(p *plan) record.Key { return p.steps[1].key },
			[]string{"reused", "new", "follows step 2"}},
		{"of the last step", func(p *plan) record.Key { return p.last() },
			[]string{"reused", "reused", "new"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			p := w.planned(t, threeSteps(), planBase, ApplyOptions{})
			w.build(t, p)
			if err := w.Store.Remove(t.Context(), store.Layers, string(tc.remove(p))); err != nil {
				t.Fatal(err)
			}
			p = w.planned(t, threeSteps(), planBase, ApplyOptions{})
			if got := w.announced(t, p, ApplyOptions{}); !slices.Equal(got, tc.want) {
				t.Errorf("announced %q, want %q", got, tc.want)
			}
		})
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
	_, err = w.plan(t.Context(), r, planBase, steps, &step.Source{Root: root}, ApplyOptions{})
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
	_, err = newWorld(t).plan(ctx, r, planBase, steps, &step.Source{Root: root}, ApplyOptions{})
	if !errors.Is(err, enough) {
		t.Errorf("error %v, want the cause of the end", err)
	}
}

// locked tells which of the locks that an apply of p takes are held: those of
// its layers, in the order of the chain, and that of its image.
func (w *world) locked(t *testing.T, p *plan) []bool {
	t.Helper()
	var held []bool
	for _, name := range claimNames(p) {
		unlock, ok, err := w.Store.TryLock(name)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			unlock()
		}
		held = append(held, !ok)
	}
	return held
}

func claimNames(p *plan) []string {
	var names []string
	for _, l := range p.steps {
		names = append(names, "layer-"+string(l.key))
	}
	return names
}

// TestClaimHoldsWhatIsMissing and nothing that is there, until it is let go.
func TestClaimHoldsWhatIsMissing(t *testing.T) {
	w := newWorld(t)
	for _, tc := range []struct {
		o    ApplyOptions
		want []bool
	}{
		{ApplyOptions{}, []bool{true, true, true}}, // before anything is built
		{ApplyOptions{}, []bool{false, false, false}},
		{ApplyOptions{Refresh: []string{"copy"}}, []bool{false, true, true}},
		{ApplyOptions{NoCache: true}, []bool{true, true, true}},
	} {
		p := w.planned(t, threeSteps(), planBase, tc.o)
		unlock, err := w.claim(t.Context(), p, tc.o)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.locked(t, p); !slices.Equal(got, tc.want) {
			t.Errorf("%+v: locks held %t, want %t", tc.o, got, tc.want)
		}
		unlock()
		if got := w.locked(t, p); slices.Contains(got, true) {
			t.Errorf("%+v: locks held %t after they were given back", tc.o, got)
		}
		if notes := w.notes(); len(notes) > 0 {
			t.Errorf("said %q, and nobody had to wait", notes)
		}
		w.build(t, p)
	}
}

// TestClaimGoesByTheChain: whoever waits for a lock holds those before it and
// none after it, so no two applies wait for each other.
func TestClaimGoesByTheChain(t *testing.T) {
	for i := range 3 {
		t.Run(fmt.Sprintf("the other holds lock %d", i+1), func(t *testing.T) {
			w := newWorld(t)
			p := w.planned(t, threeSteps(), planBase, ApplyOptions{})
			release, err := w.Store.Lock(t.Context(), claimNames(p)[i])
			if err != nil {
				t.Fatal(err)
			}
			waiting := make(chan string, 9)
			w.Events = func(e Event) { waiting <- e.Text }
			ctx, cancel := context.WithCancel(t.Context())
			claimed := make(chan error, 1)
			go func() {
				unlock, err := w.claim(ctx, p, ApplyOptions{})
				if err == nil {
					unlock()
				}
				claimed <- err
			}()
			if text := <-waiting; !strings.Contains(text, "waiting") {
				t.Errorf("said %q to whoever waits", text)
			}
			want := []bool{false, false, false}
			for j := range i + 1 {
				want[j] = true
			}
			if got := w.locked(t, p); !slices.Equal(got, want) {
				t.Errorf("locks held %t, want %t", got, want)
			}
			cancel()
			if err := <-claimed; !errors.Is(err, context.Canceled) {
				t.Errorf("error %v of a claim that was given up", err)
			}
			release()
			if got := w.locked(t, p); slices.Contains(got, true) {
				t.Errorf("locks held %t after the claim was given up", got)
			}
		})
	}
}

// TestClaimFindsWhatTheOtherMade: the second of two equal applies runs nothing.
func TestClaimFindsWhatTheOtherMade(t *testing.T) {
	w := newWorld(t)
	p := w.planned(t, threeSteps(), planBase, ApplyOptions{})
	release, err := w.claim(t.Context(), w.planned(t, threeSteps(), planBase, ApplyOptions{}), ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan string, 9)
	w.Events = func(e Event) { waiting <- e.Text }
	claimed := make(chan error, 1)
	go func() {
		unlock, err := w.claim(t.Context(), p, ApplyOptions{})
		if err == nil {
			unlock()
		}
		claimed <- err
	}()
	<-waiting
	w.build(t, w.planned(t, threeSteps(), planBase, ApplyOptions{}))
	release()
	if err := <-claimed; err != nil {
		t.Fatal(err)
	}
	if p.reused != 3 || !p.ready {
		t.Errorf("%d of 3 layers are found, ready: %t", p.reused, p.ready)
	}
	if len(waiting) > 0 {
		t.Errorf("said once more: %q", <-waiting)
	}
}
