package mutate

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// withBases is a store with two bases and an image.
func withBases(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	for _, b := range []*Base{
		{Digest: strings.Repeat("ab", 32), Names: []string{"debian-12", "bookworm"}, Seen: []FileID{{Ino: 1}, {Ino: 2}}},
		{Digest: strings.Repeat("cd", 32), Names: []string{"fedora"}, Seen: []FileID{{Ino: 3}}},
	} {
		w.publish(t, store.Bases, b.Digest, b)
	}
	w.publish(t, store.Images, "web", Image{Name: "web"})
	return w
}

func TestBasesAreFoundByNameAndDigest(t *testing.T) {
	w := withBases(t)
	for _, tc := range []struct {
		name string
		want string // the start of the digest; none if empty
	}{
		{"debian-12", "abab"},
		{"bookworm", "abab"},
		{"fedora", "cdcd"},
		{strings.Repeat("ab", 32), "abab"},
		{"abababababab", "abab"},
		{"cdcdcdcdcdcdc", "cdcd"},
		{"ababababab", ""}, // too short to be sure
		{"abababababa", ""},
		{"bababababababa", ""}, // not from the start
		{"debian", ""},
		{"web", ""},
		{"", ""},
	} {
		b, err := w.FindBase(tc.name)
		switch {
		case tc.want == "" && !errors.Is(err, store.ErrNotFound):
			t.Errorf("%q: base %v, error %v, want none", tc.name, b, err)
		case tc.want != "" && (err != nil || !strings.HasPrefix(b.Digest, tc.want)):
			t.Errorf("%q: base %v, error %v", tc.name, b, err)
		}
	}
}

// TestFilesThatWereImportedAreKnownAgain by their identity alone.
func TestFilesThatWereImportedAreKnownAgain(t *testing.T) {
	w := withBases(t)
	for ino, want := range map[uint64]string{1: "abab", 2: "abab", 3: "cdcd", 4: ""} {
		b, err := w.seen(FileID{Ino: ino})
		if err != nil {
			t.Fatal(err)
		}
		if (b == nil) != (want == "") || b != nil && !strings.HasPrefix(b.Digest, want) {
			t.Errorf("file %d is known as base %v", ino, b)
		}
	}
}

// TestANameIsOfOneBase: the last to be given it, and never an image's.
func TestANameIsOfOneBase(t *testing.T) {
	w := withBases(t)
	name := func(base, name string) error {
		b, err := w.FindBase(base)
		if err != nil {
			t.Fatal(err)
		}
		return w.nameBase(t.Context(), b, name)
	}
	names := func() map[string][]string {
		all := map[string][]string{}
		bases, err := w.Bases()
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range bases {
			all[b.Digest[:4]] = b.Names
		}
		return all
	}

	if err := name("fedora", "rawhide"); err != nil {
		t.Fatal(err)
	}
	if err := name("fedora", "rawhide"); err != nil { // which it has
		t.Fatal(err)
	}
	if got := names(); !slices.Equal(got["cdcd"], []string{"fedora", "rawhide"}) || len(w.notes()) > 0 {
		t.Errorf("names %q after it got one more", got)
	}

	if err := name("fedora", "debian-12"); err != nil {
		t.Fatal(err)
	}
	got := names()
	if !slices.Equal(got["cdcd"], []string{"fedora", "rawhide", "debian-12"}) ||
		!slices.Equal(got["abab"], []string{"bookworm"}) {
		t.Errorf("names %q after one moved", got)
	}
	notes := w.notes()
	if len(notes) != 1 || !strings.Contains(notes[0], "debian-12") || !strings.Contains(notes[0], "abababababab") {
		t.Errorf("said %q of a name that moved", notes)
	}

	before := names()
	if err := name("fedora", "web"); fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), "an image") || fault.Mend(err) == "" {
		t.Errorf("error %v of the name of an image", err)
	}
	if got := names(); !slices.Equal(got["cdcd"], before["cdcd"]) {
		t.Errorf("names %q after one was refused", got)
	}
}

// TestPinnedSumIsCompared with the base's, which is made once.
func TestPinnedSumIsCompared(t *testing.T) {
	w := withBases(t)
	b, err := w.FindBase("fedora")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("disk of " + b.Digest))
	right := hex.EncodeToString(sum[:])
	for _, tc := range []struct {
		want string
		ok   bool
	}{{"", true}, {strings.Repeat("0", 64), false}, {right, true}, {strings.ToUpper(right), true}, {right[:63], false}} {
		err := w.checkSHA256(t.Context(), b, tc.want)
		if tc.ok && err != nil || !tc.ok && (fault.Of(err) != fault.Image || !strings.Contains(err.Error(), right)) {
			t.Errorf("pinned %q: error %v", tc.want, err)
		}
		if tc.want == "" && b.SHA256 != "" {
			t.Error("it was summed, and nobody asked for that")
		}
	}
	if b, err = w.FindBase("fedora"); err != nil || b.SHA256 != right {
		t.Errorf("the record has the sum %q: %v", b.SHA256, err)
	}
}

// TestAMissingBaseIsExplained, best where a file of that name is beside the recipe.
func TestAMissingBaseIsExplained(t *testing.T) {
	w := withBases(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "debian.raw"), "image")
	for name, want := range map[string]string{"debian.raw": "base: ./debian.raw", "ubuntu": "imgmut import FILE ubuntu"} {
		_, err := w.Resolve(t.Context(), &recipes.Recipe{Dir: dir, Base: recipes.Base{Name: name}})
		var hinted interface{ Hint() string }
		if !errors.Is(err, store.ErrNotFound) || !errors.As(err, &hinted) || !strings.Contains(hinted.Hint(), want) {
			t.Errorf("base %s: error %v, want one with the hint %q", name, err, want)
		}
	}
	b, err := w.Resolve(t.Context(), &recipes.Recipe{Dir: dir, Base: recipes.Base{Name: "bookworm"}})
	if err != nil || b.Digest[:4] != "abab" {
		t.Errorf("base %v, error %v", b, err)
	}
}

// TestImportRefusesBeforeItCopies: what cannot be used leaves nothing behind.
func TestImportRefusesBeforeItCopies(t *testing.T) {
	w := withBases(t)
	for name, text := range map[string]string{"empty.raw": "", "text.raw": "no disk image at all"} {
		file := filepath.Join(t.TempDir(), name)
		writeFile(t, file, text)
		if _, err := w.Import(t.Context(), file, "x", ""); fault.Of(err) != fault.Image || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if bases, err := w.Bases(); len(bases) != 2 {
		t.Errorf("%d bases, error %v, want the two that were there", len(bases), err)
	}
}
