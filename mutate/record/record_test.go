package record_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
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

// TestCheck: readers of a record that has passed may cut its digest short and
// take its last key.
func TestCheck(t *testing.T) {
	digest := strings.Repeat("0123abcd", 8)
	for _, tc := range []struct {
		name   string
		record interface{ Check(string) error }
		of     string
		ok     bool
	}{
		{"a base", &record.Base{Digest: digest}, digest, true},
		{"another base", &record.Base{Digest: strings.Repeat("ef", 32)}, digest, false},
		{"a base without a digest", &record.Base{}, "", false},
		{"a short digest", &record.Base{Digest: "abcd"}, "abcd", false},
		{"a long digest", &record.Base{Digest: digest + "ab"}, digest + "ab", false},
		{"no digest", &record.Base{Digest: strings.Repeat("web-", 16)}, strings.Repeat("web-", 16), false},
		{"an image", &record.Image{Name: "web", Keys: []record.Key{"k"}}, "web", true},
		{"another image", &record.Image{Name: "db", Keys: []record.Key{"k"}}, "web", false},
		{"an image of no layer", &record.Image{Name: "web"}, "web", false},
	} {
		if err := tc.record.Check(tc.of); (err == nil) != tc.ok {
			t.Errorf("%s: %v, want it to be good: %t", tc.name, err, tc.ok)
		}
	}
}
