package mutate

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/step"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

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
			want: []string{"reused", "was step 3"}},
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
			want: []string{"base debian-12: abababababab → cdcdcdcdcdcd", "follows step 1", "follows step 1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			first := w.planned(t, before, planBase, ApplyOptions{})
			all := []string{"new", "follows step 1", "follows step 1"}
			if got := w.announced(t, first, ApplyOptions{}); !slices.Equal(got, all) {
				t.Fatalf("in an empty store: %q", got)
			}
			w.build(t, first)
			w.imageOf(t, first, nil)
			w.now, w.Engine = first.steps[0].record.Made.Add(tc.later), w.invocation()
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
	w.Engine = w.invocation()
	w.build(t, w.planned(t, shorter, planBase, ApplyOptions{Refresh: []string{"copy"}}))

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

// TestOneInvocationMakesWhatIsSharedOnce: recipes that are applied together share
// the steps that are made anew, and the next apply of each has nothing to do.
func TestOneInvocationMakesWhatIsSharedOnce(t *testing.T) {
	web := threeSteps()
	shop := web.edit(t, "name: web", "name: shop").edit(t, "touch /c", "touch /d")
	short := web.edit(t, "name: web", "name: short").edit(t, "  - name: last\n    run: touch /c\n    env: {LANG: C}\n", "")
	again := []string{"reused", "reused", "reused"}
	for _, tc := range []struct {
		name   string
		o      ApplyOptions
		later  time.Duration
		web    []string
		second files
		want   []string
	}{
		{"refresh of a shared step", ApplyOptions{Refresh: []string{"copy"}}, 0,
			[]string{"reused", "refresh", "follows step 2"}, shop, []string{"reused", "reused", "its parent was refreshed"}},
		{"refresh of the first", ApplyOptions{Refresh: []string{"first"}}, 0,
			[]string{"refresh", "follows step 1", "follows step 1"}, shop,
			[]string{"reused", "reused", "its parent was refreshed"}},
		{"refresh of what only one has", ApplyOptions{Refresh: []string{"run"}}, 0,
			[]string{"refresh", "follows step 1", "refresh"}, shop, []string{"reused", "reused", "refresh"}},
		{"refresh of a last step", ApplyOptions{Refresh: []string{"copy"}}, 0,
			[]string{"reused", "refresh", "follows step 2"}, short, []string{"reused", "reused"}},
		{"no cache", ApplyOptions{NoCache: true}, 0,
			[]string{"no cache", "no cache", "no cache"}, shop, []string{"reused", "reused", "no cache"}},
		{"too old", ApplyOptions{}, 8 * 24 * time.Hour,
			[]string{"older than 7d", "follows step 1", "follows step 1"}, shop,
			[]string{"reused", "reused", "its parent was refreshed"}},
		{"the same recipe twice", ApplyOptions{NoCache: true}, 0,
			[]string{"no cache", "no cache", "no cache"}, web, again},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.build(t, w.planned(t, web, planBase, ApplyOptions{}))
			w.build(t, w.planned(t, tc.second, planBase, ApplyOptions{}))
			w.now = w.now.Add(tc.later)
			w.Engine = w.invocation()
			for _, step := range []struct {
				files files
				want  []string
			}{{web, tc.web}, {tc.second, tc.want}} {
				p := w.planned(t, step.files, planBase, tc.o)
				if got := w.announced(t, p, tc.o); !slices.Equal(got, step.want) {
					t.Errorf("announced %q, want %q", got, step.want)
				}
				w.build(t, p)
			}
			w.Engine = w.invocation()
			for _, f := range []files{web, tc.second} {
				p := w.planned(t, f, planBase, ApplyOptions{})
				if p.reused != len(p.steps) {
					t.Errorf("afterwards: %q", w.announced(t, p, ApplyOptions{}))
				}
			}
		})
	}
}

// TestLongStepsDoNotGrowOldAtOnce: an age that is less than the recipes take is
// no reason to make a step for each of them.
func TestLongStepsDoNotGrowOldAtOnce(t *testing.T) {
	w := newWorld(t)
	web := threeSteps().edit(t, "max-age: 7d", "max-age: 1s")
	w.build(t, w.planned(t, web, planBase, ApplyOptions{}))
	shop := web.edit(t, "name: web", "name: shop").edit(t, "touch /c", "touch /d")
	if p := w.planned(t, shop, planBase, ApplyOptions{}); p.reused != 2 {
		t.Errorf("%d steps are reused, want 2", p.reused)
	}
	w.Engine = w.invocation()
	if p := w.planned(t, shop, planBase, ApplyOptions{}); p.reused != 0 {
		t.Errorf("%d steps are reused later, want none", p.reused)
	}
}

// TestARefreshThatWasInterrupted leaves what it has made, and the next apply of
// each recipe makes what is above it.
func TestARefreshThatWasInterrupted(t *testing.T) {
	w := newWorld(t)
	web := threeSteps()
	shop := web.edit(t, "name: web", "name: shop").edit(t, "touch /c", "touch /d")
	w.build(t, w.planned(t, web, planBase, ApplyOptions{}))
	w.build(t, w.planned(t, shop, planBase, ApplyOptions{}))
	w.Engine = w.invocation()
	p := w.planned(t, web, planBase, ApplyOptions{Refresh: []string{"copy"}})
	p.steps = p.steps[:2] // the third failed
	w.build(t, p)
	w.Engine = w.invocation()
	for _, f := range []files{web, shop} {
		p := w.planned(t, f, planBase, ApplyOptions{})
		want := []string{"reused", "reused", "its parent was refreshed"}
		if got := w.announced(t, p, ApplyOptions{}); !slices.Equal(got, want) {
			t.Errorf("%s: announced %q, want %q", p.recipe.Name, got, want)
		}
		w.build(t, p)
	}
}

// TestAnotherProcessRefreshesForItself: what it makes may have begun before this
// user asked.
func TestAnotherProcessRefreshesForItself(t *testing.T) {
	w := newWorld(t)
	w.build(t, w.planned(t, threeSteps(), planBase, ApplyOptions{}))
	ours, o := w.invocation(), ApplyOptions{Refresh: []string{"copy"}}
	w.build(t, w.planned(t, threeSteps(), planBase, o))
	w.Engine = ours
	p := w.planned(t, threeSteps(), planBase, o)
	want := []string{"reused", "refresh", "follows step 2"}
	if got := w.announced(t, p, o); !slices.Equal(got, want) {
		t.Errorf("announced %q, want %q", got, want)
	}
}

// TestReasonsAreOfTheImagesOwnChain, whatever other images have built since, and
// of its base.
func TestReasonsAreOfTheImagesOwnChain(t *testing.T) {
	w := newWorld(t)
	web := threeSteps()
	p := w.planned(t, web, planBase, ApplyOptions{})
	w.build(t, p)
	w.imageOf(t, p, nil)
	other := web.edit(t, "name: web", "name: other").edit(t, "LANG: C", "LANG: C.UTF-8")
	w.build(t, w.planned(t, other, planBase, ApplyOptions{}))
	newer := &record.Base{Digest: strings.Repeat("cd", 32), Imported: day}
	all := "base debian-12: abababababab → cdcdcdcdcdcd"
	for _, tc := range []struct {
		files files
		base  *record.Base
		want  []string
	}{
		{web.edit(t, "touch /c", "touch /d"), planBase, []string{"reused", "reused", "changed: option script"}},
		{web.edit(t, "name: web", "name: new").edit(t, "touch /c", "touch /d"), planBase, // was never made
			[]string{"reused", "reused", "new"}},
		{web, newer, []string{all, "follows step 1", "follows step 1"}},
		{web.edit(t, "touch /a", "touch /b"), newer, []string{all, "follows step 1", "follows step 1"}},
	} {
		p := w.planned(t, tc.files, tc.base, ApplyOptions{})
		if got := w.announced(t, p, ApplyOptions{}); !slices.Equal(got, tc.want) {
			t.Errorf("announced %q, want %q", got, tc.want)
		}
	}
}

// TestContainerAnew: without a cache the layer of a container image is made again, once in
// an invocation.
func TestContainerAnew(t *testing.T) {
	w := newWorld(t)
	r, err := recipes.Parse("r.yaml", []byte("version: 1\nname: x\nbase: b\n"))
	if err != nil {
		t.Fatal(err)
	}
	plan := func(o ApplyOptions) *plan {
		t.Helper()
		p, err := w.plan(t.Context(), r, planBase, &container{digest: "sha256:a"}, nil, &step.Source{}, o)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := plan(ApplyOptions{})
	for _, l := range []*link{&p.prepare, &p.bootc.link} {
		w.publish(t, store.Layers, string(l.key), record.Layer{Material: l.material})
	}
	if p := plan(ApplyOptions{}); !p.bootc.ready || p.bootc.anew {
		t.Errorf("with a cache: %+v", p.bootc)
	}
	o := ApplyOptions{NoCache: true}
	if p := plan(o); p.bootc.ready || !p.bootc.anew || p.hasGround() {
		t.Errorf("without a cache: %+v", p.bootc)
	}
	w.made[p.bootc.key] = w.now
	if p := plan(o); !p.bootc.ready || p.bootc.anew {
		t.Errorf("made in this invocation: %+v", p.bootc)
	}
}
