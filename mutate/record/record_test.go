package record_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/mutate/record"
)

// TestEveryVersionLoads: each record that any version of imgmut wrote is read
// whole. A field that was renamed or lost shows as one that is not written
// back.
func TestEveryVersionLoads(t *testing.T) {
	types := map[string]func() any{
		"base.json":  func() any { return new(record.Base) },
		"layer.json": func() any { return new(record.Layer) },
		"image.json": func() any { return new(record.Image) },
	}
	versions, err := filepath.Glob("testdata/v*")
	if err != nil || len(versions) == 0 {
		t.Fatalf("no versions: %v", err)
	}
	for _, version := range versions {
		for name, kind := range types {
			t.Run(filepath.Join(filepath.Base(version), name), func(t *testing.T) {
				b, err := os.ReadFile(filepath.Join(version, name))
				if err != nil {
					t.Fatal(err)
				}
				rec := kind()
				d := json.NewDecoder(bytes.NewReader(b))
				d.DisallowUnknownFields()
				if err := d.Decode(rec); err != nil {
					t.Fatal(err)
				}
				back, err := json.Marshal(rec)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(tree(t, b), tree(t, back)); d != "" {
					t.Errorf("read and written again (-was +is):\n%s", d)
				}
			})
		}
	}
}

func tree(t *testing.T, b []byte) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}
