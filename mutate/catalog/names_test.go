package catalog_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/catalog"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

// withBases is a catalog of two bases and an image, and what it notes.
func withBases(t *testing.T) (catalog.Catalog, *[]string) {
	t.Helper()
	c := open(t)
	notes := new([]string)
	c.Note = func(text string) { *notes = append(*notes, text) }
	for _, b := range []*record.Base{
		{Digest: strings.Repeat("ab", 32), Names: []string{"debian-12", "bookworm"}},
		{Digest: strings.Repeat("cd", 32), Names: []string{"fedora"}},
	} {
		publish(t, c, store.Bases, b.Digest, b)
	}
	publish(t, c, store.Images, "web", record.Image{Name: "web", Keys: []record.Key{"k"}})
	return c, notes
}

func TestBasesAreFoundByNameAndDigest(t *testing.T) {
	c, _ := withBases(t)
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
		b, err := c.FindBase(tc.name)
		switch {
		case tc.want == "" && !errors.Is(err, store.ErrNotFound):
			t.Errorf("%q: base %v, error %v, want none", tc.name, b, err)
		case tc.want != "" && (err != nil || !strings.HasPrefix(b.Digest, tc.want)):
			t.Errorf("%q: base %v, error %v", tc.name, b, err)
		}
	}
}

// TestANameIsOfOneBase: the last to be given it, and never an image's.
func TestANameIsOfOneBase(t *testing.T) {
	c, notes := withBases(t)
	name := func(base, name string) error {
		b, err := c.FindBase(base)
		if err != nil {
			t.Fatal(err)
		}
		release, err := c.HoldName(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		if err := c.FreeForBase(name); err != nil {
			return err
		}
		return c.NameBase(t.Context(), b, name)
	}
	names := func() map[string][]string {
		all := map[string][]string{}
		bases, err := c.Bases()
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
	if got := names(); !slices.Equal(got["cdcd"], []string{"fedora", "rawhide"}) || len(*notes) > 0 {
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
	if len(*notes) != 1 || !strings.Contains((*notes)[0], "debian-12") || !strings.Contains((*notes)[0], "abababababab") {
		t.Errorf("said %q of a name that moved", *notes)
	}

	before := names()
	if err := name("fedora", "web"); fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), "an image") ||
		fault.Mend(err) == "" {
		t.Errorf("error %v of the name of an image", err)
	}
	if got := names(); !slices.Equal(got["cdcd"], before["cdcd"]) {
		t.Errorf("names %q after one was refused", got)
	}
}

// TestANameIsNeverLost: if it ends while a name changes hands, the new base has
// it, and the next time the old one loses it.
func TestANameIsNeverLost(t *testing.T) {
	c, _ := withBases(t)
	b := &record.Base{Digest: strings.Repeat("ef", 32), Imported: time.Now()}
	publish(t, c, store.Bases, b.Digest, b)
	ctx, kill := context.WithCancel(t.Context())
	c.Note = func(string) { kill() }
	if err := c.NameBase(ctx, b, "debian-12"); !errors.Is(err, context.Canceled) {
		t.Fatalf("NameBase = %v, want it broken off", err)
	}
	if found, err := c.FindBase("debian-12"); err != nil || found.Digest != b.Digest {
		t.Errorf("broken off, and FindBase = %+v, %v; want the new base", found, err)
	}
	if err := c.NameBase(t.Context(), b, "debian-12"); err != nil {
		t.Fatal(err)
	}
	if old, err := c.FindBase("bookworm"); err != nil || slices.Contains(old.Names, "debian-12") {
		t.Errorf("the old base is %+v, %v; want it to have lost the name", old, err)
	}
}

// TestNamesAreHeld by one process at a time, and whoever waits is told.
func TestNamesAreHeld(t *testing.T) {
	c, notes := withBases(t)
	release, err := c.HoldName(t.Context(), "new")
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, cause)
	defer cancel()
	if _, err := c.HoldName(ctx, "new"); !errors.Is(err, cause) {
		t.Errorf("held, and HoldName = %v", err)
	}
	if len(*notes) != 1 || !strings.Contains((*notes)[0], "works on new") {
		t.Errorf("notes %q", *notes)
	}
	release()
	if release, err = c.HoldName(t.Context(), "new"); err != nil {
		t.Fatal(err)
	}
	release()
}

// TestAnImageCannotHaveTheNameOfABase.
func TestAnImageCannotHaveTheNameOfABase(t *testing.T) {
	c, _ := withBases(t)
	for name, free := range map[string]bool{"web": true, "new": true, "bookworm": false, "fedora": false} {
		if err := c.FreeForImage(name); (err == nil) != free || !free && fault.Of(err) != fault.Usage {
			t.Errorf("%s: %v, want it free: %t", name, err, free)
		}
	}
}

// TestTheUnreadableIsPassedOver: it is named with the mend, its name stays
// taken, and neither it nor what it may need is removed.
func TestTheUnreadableIsPassedOver(t *testing.T) {
	c, notes := withBases(t)
	unnamed := strings.Repeat("ef", 32) // perhaps the broken image's
	publish(t, c, store.Bases, unnamed, record.Base{Digest: unnamed})
	publish(t, c, store.Layers, "orphan", record.Layer{})
	publish(t, c, store.Images, "broken", record.Image{Name: "broken", Keys: []record.Key{"k"}})
	for _, file := range []string{
		c.Store.Path(store.Images, "broken", "json"), c.Store.Path(store.Bases, strings.Repeat("cd", 32), "json"),
	} {
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if images, err := c.Images(); len(images) != 1 || images[0].Name != "web" || err != nil {
		t.Errorf("Images = %v, %v", images, err)
	}
	if len(*notes) != 1 || !strings.Contains((*notes)[0], "broken.json") ||
		!strings.Contains((*notes)[0], "imgmut rm broken") {
		t.Errorf("notes %q, want the record and the mend", *notes)
	}
	if bases, err := c.Bases(); len(bases) != 2 || err != nil {
		t.Errorf("Bases = %v, %v", bases, err)
	}
	if has, err := c.HasImage("broken"); !has || err != nil {
		t.Errorf("HasImage = %v, %v", has, err)
	}
	r, err := c.Collect(t.Context(), false)
	if err != nil || len(r.Bases) != 0 || len(r.Layers) != 1 || r.Layers[0].Key != "orphan" {
		t.Errorf("Collect = %+v, %v; want the layer alone", r, err)
	}
	// With the record gone, nothing is in doubt any more.
	if err := c.Store.Remove(t.Context(), store.Images, "broken"); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Collect(t.Context(), false); err != nil || len(r.Bases) != 1 || r.Bases[0].Digest != unnamed {
		t.Errorf("Collect = %+v, %v; want the base without a name", r, err)
	}
}

// TestOddRecordsArePassedOver: JSON that is no record of the object, and an
// object without its disk, are as an unreadable record is.
func TestOddRecordsArePassedOver(t *testing.T) {
	base := strings.Repeat("ab", 32)
	for name, spoil := range map[string]func(c catalog.Catalog) error{
		"null": func(c catalog.Catalog) error {
			return os.WriteFile(c.Store.Path(store.Images, "odd", "json"), []byte("null"), 0o600)
		},
		"another type": func(c catalog.Catalog) error {
			return os.WriteFile(c.Store.Path(store.Images, "odd", "json"), []byte(`{"digest": "`+base+`"}`), 0o600)
		},
		"another image's": func(c catalog.Catalog) error {
			return os.WriteFile(c.Store.Path(store.Images, "odd", "json"), []byte(`{"name": "web"}`), 0o600)
		},
		"no disk": func(c catalog.Catalog) error { return os.Remove(c.ImageFile("odd")) },
	} {
		t.Run(name, func(t *testing.T) {
			c, notes := withBases(t)
			publish(t, c, store.Images, "odd", record.Image{Name: "odd", Keys: []record.Key{"k"}})
			if err := spoil(c); err != nil {
				t.Fatal(err)
			}
			if images, err := c.Images(); len(images) != 1 || images[0].Name != "web" || err != nil {
				t.Errorf("Images = %v, %v", images, err)
			}
			if len(*notes) != 1 || !strings.Contains((*notes)[0], "imgmut rm odd") {
				t.Errorf("notes %q, want the mend", *notes)
			}
			if has, err := c.HasImage("odd"); !has || err != nil {
				t.Errorf("HasImage = %v, %v", has, err)
			}
			if _, err := c.Collect(t.Context(), false); err != nil {
				t.Errorf("Collect: %v", err)
			}
		})
	}
	c, _ := withBases(t)
	for k, name := range map[store.Kind]string{store.Bases: base, store.Layers: "k"} {
		publish(t, c, k, name, struct{}{})
	}
	if bases, err := c.Bases(); len(bases) != 1 || err != nil {
		t.Errorf("Bases = %v, %v", bases, err)
	}
	if _, ok, err := c.FindLayer("k"); ok || err != nil {
		t.Errorf("FindLayer = %t, %v; want it to be made again", ok, err)
	}
}

// publish makes an object of the store.
func publish(t *testing.T, c catalog.Catalog, k store.Kind, name string, rec any) {
	t.Helper()
	run, err := c.Store.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	file := run.Path("made.raw")
	if err := os.WriteFile(file, []byte("disk of "+name), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Store.Publish(t.Context(), file, k, name, rec, nil); err != nil {
		t.Fatal(err)
	}
}
