package mutate

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/step"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// day is when the tests of this package take place.
var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is an engine over an empty store, with a clock that the test sets and
// a memory for what the engine says. It starts no guest.
type world struct {
	*Engine
	now     time.Time
	said    []Event
	telling sync.Mutex
}

func newWorld(t *testing.T) *world {
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
	w := &world{now: day}
	w.Engine = &Engine{
		Store: s,
		Events: func(e Event) {
			w.telling.Lock()
			defer w.telling.Unlock()
			w.said = append(w.said, e)
		},
		Now:  func() time.Time { return w.now },
		made: map[record.Key]time.Time{},
	}
	return w
}

// invocation is the engine of another run of imgmut.
func (w *world) invocation() *Engine {
	e := *w.Engine
	e.made = map[record.Key]time.Time{}
	return &e
}

// notes are what the user has been told since the last call.
func (w *world) notes() []string {
	var notes []string
	for _, e := range w.said {
		if e.Type == EventNote {
			notes = append(notes, e.Text)
		}
	}
	w.said = nil
	return notes
}

// publish makes an object of the store, with a disk of some bytes.
func (w *world) publish(t *testing.T, k store.Kind, name string, record any) {
	t.Helper()
	run, err := w.Store.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	file := run.Path("made.raw")
	writeFile(t, file, "disk of "+name)
	if err := w.Store.Publish(t.Context(), file, k, name, record, nil); err != nil {
		t.Fatal(err)
	}
}

// files is the directory of a recipe, by name and content.
type files map[string]string

// load writes the files into dir and reads recipe.yaml among them.
func (f files) load(t *testing.T, dir string) (*recipes.Recipe, []step.Decoded) {
	t.Helper()
	for name, text := range f {
		writeFile(t, filepath.Join(dir, name), text)
	}
	r, err := recipes.Load(filepath.Join(dir, "recipe.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	steps, _, err := decode(r)
	if err != nil {
		t.Fatal(err)
	}
	return r, steps
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
