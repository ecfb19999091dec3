package deliver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

// source is a store to deliver from. Its images are a few bytes.
type source struct{ Source }

func newSource(t *testing.T) source {
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
	return source{Source{
		Store: s, Phase: func(string) {}, Note: func(text string) { t.Errorf("note: %s", text) },
		Progress: func(string) func(done, total int64) { return func(int64, int64) {} },
	}}
}

// publish makes an image, and a base for it.
func (s source) publish(t *testing.T, i record.Image) *record.Image {
	t.Helper()
	i.Base, i.Keys = strings.Repeat("ab", 32), []record.Key{"k"}
	for _, o := range []struct {
		kind store.Kind
		name string
		rec  any
	}{{store.Bases, i.Base, record.Base{Digest: i.Base}}, {store.Images, i.Name, i}} {
		run, err := s.Store.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		file := run.Path("made.raw")
		writeFile(t, file, "disk of "+o.name)
		if err := s.Store.Publish(t.Context(), file, o.kind, o.name, o.rec, nil); err != nil {
			t.Fatal(err)
		}
		if err := run.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return &i
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
