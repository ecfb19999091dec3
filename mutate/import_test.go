package mutate

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// withBases is a store with two bases and an image.
func withBases(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	for _, b := range []*record.Base{
		{Digest: strings.Repeat("ab", 32), Names: []string{"debian-12", "bookworm"},
			Seen: []content.FileID{{Ino: 1}, {Ino: 2}}},
		{Digest: strings.Repeat("cd", 32), Names: []string{"fedora"}, Seen: []content.FileID{{Ino: 3}, {Ino: 4}},
			Origins: []record.Origin{{File: content.FileID{Ino: 4}, Is: []string{"qcow2"}, SHA256: strings.Repeat("e5", 32)}}},
	} {
		w.publish(t, store.Bases, b.Digest, b)
	}
	w.publish(t, store.Images, "web", record.Image{Name: "web", Keys: []record.Key{"k"}})
	return w
}

// TestFilesThatWereImportedAreKnownAgain by their identity alone.
func TestFilesThatWereImportedAreKnownAgain(t *testing.T) {
	w := withBases(t)
	for ino, want := range map[uint64]string{1: "abab", 2: "abab", 3: "cdcd", 4: "cdcd", 5: ""} {
		b, err := w.seen(content.FileID{Ino: ino})
		if err != nil {
			t.Fatal(err)
		}
		if (b == nil) != (want == "") || b != nil && !strings.HasPrefix(b.Digest, want) {
			t.Errorf("file %d is known as base %v", ino, b)
		}
	}
}

// TestPinnedSumsAreCompared with those of the file: of a raw one with the base's, which are
// made once; of others with those that were made when it was imported.
func TestPinnedSumsAreCompared(t *testing.T) {
	w := withBases(t)
	b, err := w.Catalog().FindBase("fedora")
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("disk of " + b.Digest)
	of256, of512 := sha256.Sum256(text), sha512.Sum512(text)
	sum256, sum512 := hex.EncodeToString(of256[:]), hex.EncodeToString(of512[:])
	raw, packed := content.FileID{Ino: 3}, content.FileID{Ino: 4}
	other := strings.Repeat("e5", 32)
	for _, tc := range []struct {
		id   content.FileID
		want recipes.Base
		said string // of the error
	}{
		{raw, recipes.Base{}, ""},
		{raw, recipes.Base{SHA256: strings.Repeat("0", 64)}, "its sha256 is " + sum256},
		{raw, recipes.Base{SHA256: sum256}, ""},
		{raw, recipes.Base{SHA256: strings.ToUpper(sum256)}, ""},
		{raw, recipes.Base{SHA256: sum256[:63]}, "its sha256 is " + sum256},
		{raw, recipes.Base{SHA256: sum256, SHA512: sum256}, "its sha512 is " + sum512},
		{raw, recipes.Base{SHA512: sum512}, ""},
		{packed, recipes.Base{SHA256: other}, ""},
		{packed, recipes.Base{SHA256: sum256}, "its sha256 is " + other},
	} {
		if b, err = w.Catalog().FindBase("fedora"); err != nil {
			t.Fatal(err)
		}
		err = w.checkSums(t.Context(), b, tc.id, tc.want)
		if tc.said == "" && err != nil || tc.said != "" && (fault.Of(err) != fault.Image || !strings.Contains(err.Error(), tc.said)) {
			t.Errorf("pinned %+v: error %v, want %q", tc.want, err, tc.said)
		}
		if tc.want == (recipes.Base{}) && b.SHA256+b.SHA512 != "" {
			t.Error("it was summed, and nobody asked for that")
		}
	}
	if !hasSums(b, packed, recipes.Base{SHA256: other}) || hasSums(b, packed, recipes.Base{SHA512: sum512}) ||
		!hasSums(b, raw, recipes.Base{SHA512: sum512}) {
		t.Error("sums that nobody made are taken for made, or the other way round")
	}
	b, err = w.Catalog().FindBase("fedora")
	if err != nil || b.SHA256 != sum256 || b.SHA512 != sum512 || b.Origins[0].SHA256 != other {
		t.Errorf("the record has the sums %+v: %v", b, err)
	}
}

// TestSumsAreOfWhatIsUsed: a file that is pinned is used from a copy, and only if that has
// the sum; its owner can change the file meanwhile, so that the kernel tells nothing of it.
func TestSumsAreOfWhatIsUsed(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "image.raw")
	writeFile(t, file, "what was summed")
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	run, err := w.Store.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	sum := sha256.Sum256([]byte("what was summed"))
	s := &source{f: f, of: recipes.Base{SHA256: hex.EncodeToString(sum[:])}}
	held, err := w.held(t.Context(), run, s)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	writeFile(t, file, "something else!")
	b := make([]byte, 15)
	if _, err := held.ReadAt(b, 0); err != nil || string(b) != "what was summed" {
		t.Errorf("it holds %q, %v", b, err)
	}
	other, err := w.Store.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := w.held(t.Context(), other, s); fault.Of(err) != fault.Image || !strings.Contains(err.Error(), "the recipe wants") {
		t.Errorf("another file: %v", err)
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
		if _, err := w.Import(t.Context(), recipes.Base{Path: file}, "x"); fault.Of(err) != fault.Image ||
			!strings.Contains(err.Error(), file) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if bases, err := w.Catalog().Bases(); len(bases) != 2 {
		t.Errorf("%d bases, error %v, want the two that were there", len(bases), err)
	}
}

// TestImagesAreRegularFiles: all else is refused at once, a pipe too, which
// would wait for its other end.
func TestImagesAreRegularFiles(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "image.raw"), "image")
	if err := os.Symlink("image.raw", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"image.raw", "link"} {
		f, err := openImage(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		f.Close()
	}
	for _, name := range []string{filepath.Join(dir, "pipe"), dir, "/dev/null"} {
		if _, err := openImage(name); fault.Of(err) != fault.Image {
			t.Errorf("%s: error %v, want one of the image", name, err)
		}
	}
	if _, err := openImage(filepath.Join(dir, "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v of a file that is not there", err)
	}
}

// TestScatteredFilesAreRefused: the kernel takes long to clone one, and no signal
// ends that.
func TestScatteredFilesAreRefused(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const pieces = 8
	if err := f.Truncate(2 * pieces << 20); err != nil {
		t.Fatal(err)
	}
	for i := range int64(pieces) {
		if _, err := f.WriteAt([]byte("data"), 2*i<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := checkExtents(t.Context(), f, pieces); err != nil {
		t.Errorf("as many pieces as there may be: %v", err)
	}
	if err := checkExtents(t.Context(), f, pieces-1); fault.Of(err) != fault.Image ||
		!strings.Contains(err.Error(), "more than 7 pieces") {
		t.Errorf("one more: error %v, want one of the image's", err)
	}
}

// TestPinnedSumEndsWithTheContext: it takes as long as the image is large.
func TestPinnedSumEndsWithTheContext(t *testing.T) {
	w := withBases(t)
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err == nil {
		err = f.Truncate(4 << 40)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cause := errors.New("the user pressed ^C")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(100*time.Millisecond, func() { cancel(cause) })
	started := time.Now()
	if _, _, err := w.plainSums(ctx, f, recipes.Base{SHA256: strings.Repeat("0", 64)}); !errors.Is(err, cause) {
		t.Errorf("error %v, want the cause", err)
	}
	if took := time.Since(started); took > time.Second {
		t.Errorf("it ended after %v", took)
	}
}

// TestSumsOfAnOlderImgmut are refused with what to do.
func TestSumsOfAnOlderImgmut(t *testing.T) {
	w := withBases(t)
	base, err := w.Catalog().FindBase("fedora")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.Store.Path(store.Bases, base.Digest, "sums"), make([]byte, 40), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &build{Engine: w.Engine, plan: &plan{base: base}}
	_, err = b.layerSums(t.Context())
	if fault.Of(err) != fault.Host || !strings.Contains(fault.Mend(err), "import it again") {
		t.Errorf("error %v (%s), want one of the host's with a mend", err, fault.Mend(err))
	}
}
