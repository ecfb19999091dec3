package mutate

import (
	"os"
	"slices"
	"testing"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// TestNameOfAnotherRecipe is refused, but not that of the same recipe in
// another place or of one that was moved.
func TestNameOfAnotherRecipe(t *testing.T) {
	w := newWorld(t)
	t.Chdir(t.TempDir())
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.yaml", "b.yaml", "sub/a.yaml"} {
		writeFile(t, name, "text of "+name)
	}
	if err := os.Symlink("a.yaml", "link.yaml"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name          string
		recorded, sum string // of the image that is there
		file          string // of the recipe that is applied, whose sum is "a"
		refused       bool
	}{
		{"the same", dir + "/a.yaml", "a", "a.yaml", false},
		{"the same, changed since", dir + "/a.yaml", "old", "a.yaml", false},
		{"the same by a link", dir + "/a.yaml", "old", "link.yaml", false},
		{"the same from elsewhere", dir + "/a.yaml", "old", dir + "/sub/../a.yaml", false},
		{"another", dir + "/b.yaml", "b", "a.yaml", true},
		{"a copy", dir + "/sub/a.yaml", "a", "a.yaml", false},
		{"a copy, changed since", dir + "/sub/a.yaml", "old", "a.yaml", true},
		{"one that was moved", dir + "/before.yaml", "old", "a.yaml", false},
		{"one of an older record", "b.yaml", "b", "a.yaml", false},
	} {
		w.publish(t, store.Images, "web", record.Image{
			Name: "web", Recipe: tc.recorded, RecipeSum: tc.sum, Keys: []record.Key{"k"},
		})
		err := w.checkOwner(&recipes.Recipe{Name: "web", Path: tc.file, Digest: "a"})
		if got := fault.Of(err) == fault.Usage; got != tc.refused || err != nil && !tc.refused {
			t.Errorf("%s: error %v", tc.name, err)
		}
	}
	if err := w.checkOwner(&recipes.Recipe{Name: "free", Path: "a.yaml"}); err != nil {
		t.Errorf("a name that nothing has: %v", err)
	}
}

// TestEventsSayTheirRecipe, all of them, and those of the engine itself do not.
func TestEventsSayTheirRecipe(t *testing.T) {
	w := newWorld(t)
	w.labelled("web").note("one")
	w.labelled("db").phase("two")
	w.note("three")
	var got []string
	for _, e := range w.said {
		got = append(got, e.Recipe+":"+e.Text)
	}
	if want := []string{"web:one", "db:two", ":three"}; !slices.Equal(got, want) {
		t.Errorf("said %q, want %q", got, want)
	}
}
