package mutate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// TestAnswers: what a URL had last is known to whoever asks the same list of sums, with the
// same keys. That somebody pins the sum of a file says nothing of what the URL has.
func TestAnswers(t *testing.T) {
	w := newWorld(t)
	const url, sums = "https://example.org/latest.qcow2", "https://example.org/SHA256SUMS"
	keyring := filepath.Join(t.TempDir(), "keys.gpg")
	writeFile(t, keyring, "keys")
	older, newer := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	for digest, at := range map[string]time.Time{older: w.Now().Add(-48 * time.Hour), newer: w.Now().Add(-time.Hour)} {
		w.publish(t, store.Bases, digest, &record.Base{Digest: digest,
			Origins: []record.Origin{{URL: url, Sums: sums, SHA256: digest, Fetched: at}}})
	}
	if _, err := w.fetch(t.Context(), recipes.Base{URL: url, SHA256: older}, false); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		of   recipes.Base
		want string
	}{
		{"the same question", recipes.Base{URL: url, Sums: sums}, newer},
		{"with a secret in it", recipes.Base{URL: url + "?token=x", Sums: sums}, newer},
		{"long ago", recipes.Base{URL: url, Sums: sums, MaxAge: time.Minute}, ""},
		{"not so long ago", recipes.Base{URL: url, Sums: sums, MaxAge: 2 * time.Hour}, newer},
		{"another list", recipes.Base{URL: url, Sums: sums + ".old"}, ""},
		{"of somebody's keys", recipes.Base{URL: url, Sums: sums, Keyring: keyring}, ""},
		{"another URL", recipes.Base{URL: url + ".xz", Sums: sums}, ""},
	} {
		b, err := w.lastFetched(tc.of)
		if err != nil || (b == nil) != (tc.want == "") || b != nil && b.Digest != tc.want {
			t.Errorf("%s: %v, %v, want %.4s", tc.name, b, err, tc.want)
		}
	}
	if err := os.Remove(keyring); err != nil {
		t.Fatal(err)
	}
	if b, err := w.lastFetched(recipes.Base{URL: url, Sums: sums, Keyring: keyring}); err == nil {
		t.Errorf("without the keys: %v", b)
	}
}
