package mutate

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/verify"
	"github.com/imgmut/imgmut/recipes"
)

// TestRefreshNamesAStepOfSomeRecipe, or it would silently do nothing.
func TestRefreshNamesAStepOfSomeRecipe(t *testing.T) {
	web, _ := threeSteps().load(t, t.TempDir())
	db, _ := threeSteps().edit(t, "name: last", "name: schema").load(t, t.TempDir())
	for _, tc := range []struct {
		refresh []string
		of      []*recipes.Recipe
		ok      bool
	}{
		{nil, []*recipes.Recipe{web}, true},
		{[]string{"first"}, []*recipes.Recipe{web}, true},
		{[]string{"copy"}, []*recipes.Recipe{web}, true},
		{[]string{"last", "run"}, []*recipes.Recipe{web}, true},
		{[]string{"schema"}, []*recipes.Recipe{web}, false},
		{[]string{"schema"}, []*recipes.Recipe{web, db}, true},
		{[]string{"last", "schema"}, []*recipes.Recipe{web, db}, true},
		{[]string{"frist"}, []*recipes.Recipe{web, db}, false},
		{[]string{"first", "write"}, []*recipes.Recipe{web, db}, false},
		{[]string{""}, []*recipes.Recipe{web}, false},
		{[]string{"web"}, []*recipes.Recipe{web}, false},
	} {
		err := ApplyOptions{Refresh: tc.refresh}.Check(tc.of)
		if tc.ok != (err == nil) || !tc.ok && fault.Of(err) != fault.Usage {
			t.Errorf("refresh %q of %d recipes: %v", tc.refresh, len(tc.of), err)
		}
	}
}

func TestAnImageIsNotItsOwnBase(t *testing.T) {
	r, _ := threeSteps().load(t, t.TempDir())
	r.Base.Name = r.Name
	var problems recipes.Problems
	if err := Check(r); !errors.As(err, &problems) {
		t.Errorf("error %v, want a problem of the recipe", err)
	}
}

// TestInputsAreCheckedWithoutAnImage, all of them.
func TestInputsAreCheckedWithoutAnImage(t *testing.T) {
	recipe := threeSteps().edit(t, "name: last", "name: more\n    copy: {from: gone, to: /x}\n  - name: last")
	r, _ := recipe.load(t, t.TempDir())
	var problems recipes.Problems
	if err := CheckInputs(r); !errors.As(err, &problems) || len(problems) != 1 {
		t.Errorf("error %v, want one problem", err)
	}
	if err := os.RemoveAll(filepath.Join(r.Dir, "site")); err != nil {
		t.Fatal(err)
	}
	if err := CheckInputs(r); !errors.As(err, &problems) || len(problems) != 2 {
		t.Errorf("error %v, want two problems", err)
	}
	r, _ = threeSteps().load(t, t.TempDir())
	if err := CheckInputs(r); err != nil {
		t.Error(err)
	}
}

// imageOf is the record of the image that an apply of p leaves, and its file.
func (w *world) imageOf(t *testing.T, p *plan, assertions []verify.Assertion) {
	t.Helper()
	asked, err := verify.Record(assertions)
	if err != nil {
		t.Fatal(err)
	}
	i := &record.Image{Name: p.recipe.Name, Base: p.base.Digest, BaseName: p.recipe.Base.Name, Made: w.now,
		LayerMade: p.lastMade(), Assertions: asked, Verdict: record.Verdict{OK: true},
		Identity: p.identity()}
	i.Keys = append(i.Keys, p.prepare.key)
	for _, l := range p.steps {
		i.Keys = append(i.Keys, l.key)
	}
	w.publish(t, store.Images, i.Name, i)
	w.record(t, i.Name, func(i *record.Image) {
		if i.File, err = content.IDOfPath(w.Catalog().ImageFile(i.Name)); err != nil {
			t.Fatal(err)
		}
	})
}

func (w *world) record(t *testing.T, name string, change func(*record.Image)) {
	t.Helper()
	var i record.Image
	err := w.Store.Update(t.Context(), store.Images, name, &i, func() error { change(&i); return nil })
	if err != nil {
		t.Fatal(err)
	}
}

// TestWhenAnImageIsMadeAnew: it is not as long as chain, assertions and file
// are what they were, and its verdict was good.
func TestWhenAnImageIsMadeAnew(t *testing.T) {
	recipe := threeSteps().with("recipe.yaml", threeSteps()["recipe.yaml"]+"verify:\n  - file: {path: /a}\n")
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, w *world)
		recipe files
		there  bool
	}{
		{"nothing is changed", nil, recipe, true},
		{"another name", nil, recipe.edit(t, "name: web", "name: shop"), false},
		{"another assertion", nil, recipe.edit(t, "path: /a", "path: /c"), false},
		{"one assertion more", nil, recipe.with("recipe.yaml", recipe["recipe.yaml"]+"  - absent: /b\n"), false},
		{"no last step", nil, recipe.edit(t, "  - name: last\n    run: touch /c\n    env: {LANG: C}\n", ""), false},
		{"another last step", nil, recipe.edit(t, "touch /c", "touch /d"), false},
		{"its last layer was made again meanwhile", func(t *testing.T, w *world) {
			w.record(t, "web", func(i *record.Image) { i.LayerMade = i.LayerMade.Add(-time.Second) })
		}, recipe, false},
		{"a record that does not tell of its layer", func(t *testing.T, w *world) {
			w.record(t, "web", func(i *record.Image) { i.LayerMade = time.Time{} })
		}, recipe, true},
		{"its file is gone", func(t *testing.T, w *world) {
			if err := os.Remove(w.Catalog().ImageFile("web")); err != nil {
				t.Fatal(err)
			}
		}, recipe, false},
		{"its file was written to", func(t *testing.T, w *world) {
			later := w.now.Add(time.Hour)
			if err := os.Chtimes(w.Catalog().ImageFile("web"), later, later); err != nil {
				t.Fatal(err)
			}
		}, recipe, false},
		{"its verdict is bad", func(t *testing.T, w *world) {
			w.record(t, "web", func(i *record.Image) { i.Verdict.OK = false })
		}, recipe, false},
		{"its last layer was made again since, and its record does not tell which it had", func(t *testing.T, w *world) {
			w.record(t, "web", func(i *record.Image) { i.Made, i.LayerMade = i.Made.Add(-time.Second), time.Time{} })
		}, recipe, false},
		{"identities are made otherwise since", func(t *testing.T, w *world) {
			w.record(t, "web", func(i *record.Image) { i.Identity.Disk = "00000000-0000-5000-8000-000000000000" })
		}, recipe, false},
		{"other filesystem UUIDs are asked for", nil, recipe.edit(t, "name: web", "name: web\nidentity: {filesystems: true}"), false},
		{"other types are", nil, recipe.edit(t, "name: web", "name: web\nidentity: {types: keep}"), false},
		{"a record of no layers", func(t *testing.T, w *world) {
			w.record(t, "web", func(i *record.Image) { i.Keys = nil })
		}, recipe, false},
		{"it was removed", func(t *testing.T, w *world) {
			if err := w.Store.Remove(t.Context(), store.Images, "web"); err != nil {
				t.Fatal(err)
			}
		}, recipe, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			root := disk.Volume{Slot: 1, Role: disk.Root, Mountpoint: "/", PartUUID: "aaaaaaaa-0000-0000-0000-000000000001",
				FS: "ext4", UUID: "bbbbbbbb-0000-0000-0000-000000000001"}
			base := &record.Base{
				Digest: planBase.Digest, Imported: planBase.Imported,
				Layout: disk.Layout{Table: disk.GPT, Arch: "x86-64", Volumes: []disk.Volume{root}},
			}
			p := w.planned(t, recipe, base, ApplyOptions{})
			w.build(t, p)
			w.imageOf(t, p, assertionsOf(t, p))
			if tc.change != nil {
				tc.change(t, w)
			}
			p = w.planned(t, tc.recipe, base, ApplyOptions{})
			if _, there, err := w.existingImage(p, assertionsOf(t, p)); err != nil || there != tc.there {
				t.Errorf("it is there: %t, error %v, want %t", there, err, tc.there)
			}
		})
	}
}

func assertionsOf(t *testing.T, p *plan) []verify.Assertion {
	t.Helper()
	_, assertions, err := decode(p.recipe)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clip(assertions)
}
