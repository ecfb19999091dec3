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

func TestCommitThenFind(t *testing.T) {
	c := open(t)
	rec := record.Layer{
		Material: *full(), Name: "motd", Made: made, ParentMade: made.Add(-time.Minute), Took: 1500 * time.Millisecond,
	}
	k := key(t, full())
	if _, ok, err := c.FindLayer(k); ok || err != nil {
		t.Fatalf("Find in an empty store = %v, %v", ok, err)
	}
	commit(t, c, k, rec)
	got, ok, err := c.FindLayer(k)
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
	if _, ok, err := c.FindLayer(k); ok || err != nil {
		t.Errorf("Find = %v, %v", ok, err)
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
	if _, ok, err := c.FindLayer("k"); ok || err != nil {
		t.Errorf("FindLayer = %v, %v; want none", ok, err)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "k.json") || !strings.Contains(notes[0], "made again") {
		t.Errorf("notes %q, want the record and what becomes of it", notes)
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
