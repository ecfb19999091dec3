package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/store"
)

func TestOpenWhereReflinksWork(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Reflink)
	s := reopen(t, fixtures.ReflinkDir(t)) // fails on a note
	for dir, want := range map[string]os.FileMode{
		"bases": 0o700, "layers": 0o700, "tmp": 0o700, "locks": 0o700, "images": 0o700, "inputs": 0o700,
	} {
		if fi, err := os.Stat(filepath.Join(s.Root(), dir)); err != nil || fi.Mode() != os.ModeDir|want {
			t.Errorf("%s: %v, %v; want mode %v", dir, fi, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(s.Root(), "pool.xfs")); err == nil {
		t.Error("made a pool nobody needs")
	}
	mustPublish(t, s, begin(t, s), store.Images, "web", "disk")
	again := reopen(t, s.Root())
	if names, err := again.Names(store.Images); err != nil || !slices.Equal(names, []string{"web"}) {
		t.Errorf("after opening again: %v, %v", names, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), filepath.Join(file, "store"), nil); err == nil {
		t.Error("opened a store below a file")
	}
}

func TestPublish(t *testing.T) {
	s := open(t)
	run := begin(t, s)
	file := run.Path("work.raw")
	if err := os.WriteFile(file, []byte("disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A name with a dot has no extension.
	for _, name := range []string{"web", "web.v2", "web.raw", "ünïcode"} {
		mustPublish(t, s, run, store.Images, name, "disk of "+name)
	}
	sums := map[string][]byte{"sums": []byte("s")}
	if err := s.Publish(t.Context(), file, store.Bases, "b", record{"a base"}, sums); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the run's file is still there: %v", err)
	}
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, want string
		mode       os.FileMode
	}{
		{s.Path(store.Images, "web.v2", "raw"), "disk of web.v2", 0o444},
		{s.Path(store.Bases, "b", "raw"), "disk", 0o444},
		{s.Path(store.Bases, "b", "sums"), "s", 0o600},
		{s.Path(store.Bases, "b", "json"), "{\n  \"Text\": \"a base\"\n}\n", 0o600},
	} {
		b, err := os.ReadFile(c.path)
		if err != nil || string(b) != c.want {
			t.Errorf("%s holds %q, %v; want %q", c.path, b, err, c.want)
		}
		if fi, err := os.Stat(c.path); err == nil && fi.Mode() != c.mode {
			t.Errorf("%s has mode %v, want %v", c.path, fi.Mode(), c.mode)
		}
	}
	names, err := s.Names(store.Images)
	if d := cmp.Diff([]string{"web", "web.raw", "web.v2", "ünïcode"}, names); d != "" || err != nil {
		t.Errorf("Names (-want +got), %v:\n%s", err, d)
	}
	var rec record
	if err := s.Load(store.Images, "web.v2", &rec); err != nil || rec.Text != "disk of web.v2" {
		t.Errorf("Load = %v, %+v", err, rec)
	}
	if names, err := s.Names(store.Layers); len(names) != 0 || err != nil {
		t.Errorf("layers: %v, %v", names, err)
	}
}

func TestPublishReplaces(t *testing.T) {
	s := open(t)
	run := begin(t, s)
	mustPublish(t, s, run, store.Images, "web", "old")
	old, err := os.Open(s.Path(store.Images, "web", "raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	mustPublish(t, s, run, store.Images, "web", "new")
	var rec record
	if err := s.Load(store.Images, "web", &rec); err != nil || rec.Text != "new" {
		t.Errorf("Load = %v, %+v; want the new record", err, rec)
	}
	if b, err := os.ReadFile(s.Path(store.Images, "web", "raw")); err != nil || string(b) != "new" {
		t.Errorf("the disk holds %q, %v", b, err)
	}
	b := make([]byte, 3)
	if _, err := old.Read(b); err != nil || string(b) != "old" {
		t.Errorf("a process that had the old disk open now reads %q, %v", b, err)
	}
}

// TestReplacedWhole reads an object that is replaced all the time: never half a
// record, never a moment without one, never a temporary name.
func TestReplacedWhole(t *testing.T) {
	s := open(t)
	run := begin(t, s)
	texts := []string{strings.Repeat("a", 20000), strings.Repeat("b", 50000)}
	mustPublish(t, s, run, store.Images, "web", texts[0])
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 60 {
			if err := publish(t.Context(), s, run, store.Images, "web", texts[i%2]); err != nil {
				t.Error(err)
			}
			if err := update(t, s, store.Images, "web", texts[i%2]); err != nil {
				t.Error(err)
			}
		}
	}()
	for reads := 0; ; reads++ {
		var rec record
		if err := s.Load(store.Images, "web", &rec); err != nil || !slices.Contains(texts, rec.Text) {
			t.Errorf("a record of %d bytes, %v", len(rec.Text), err)
		}
		b, err := os.ReadFile(s.Path(store.Images, "web", "raw"))
		if err != nil || !slices.Contains(texts, string(b)) {
			t.Errorf("a disk of %d bytes, %v", len(b), err)
		}
		if names, err := s.Names(store.Images); err != nil || !slices.Equal(names, []string{"web"}) {
			t.Errorf("names %v, %v", names, err)
		}
		select {
		case <-done:
			return
		default:
		}
		if t.Failed() {
			<-done
			return
		}
	}
}

// update gives an object's record another text.
func update(t *testing.T, s *store.Store, k store.Kind, name, text string) error {
	var rec record
	return s.Update(t.Context(), k, name, &rec, func() error { rec.Text = text; return nil })
}

func TestUpdateReplacesTheRecordAlone(t *testing.T) {
	s := open(t)
	mustPublish(t, s, begin(t, s), store.Bases, "b", "disk")
	if err := update(t, s, store.Bases, "b", "seen"); err != nil {
		t.Fatal(err)
	}
	var rec record
	if err := s.Load(store.Bases, "b", &rec); err != nil || rec.Text != "seen" {
		t.Errorf("Load = %v, %+v", err, rec)
	}
	if b, err := os.ReadFile(s.Path(store.Bases, "b", "raw")); err != nil || string(b) != "disk" {
		t.Errorf("the disk holds %q, %v", b, err)
	}
	failure := errors.New("no")
	fail := func() error { rec.Text = "lost"; return failure }
	if err := s.Update(t.Context(), store.Bases, "b", &rec, fail); !errors.Is(err, failure) {
		t.Errorf("Update whose change fails: %v", err)
	}
	if err := update(t, s, store.Bases, "nothing", "x"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Update of what is not there: %v", err)
	}
	if err := s.Load(store.Bases, "b", &rec); err != nil || rec.Text != "seen" {
		t.Errorf("after an Update that failed: Load = %v, %+v", err, rec)
	}
}

func TestNotFound(t *testing.T) {
	s := open(t)
	err := s.Load(store.Images, "web", &record{})
	if !errors.Is(err, store.ErrNotFound) || err.Error() != "image web: not found in the store" {
		t.Errorf("Load: %v", err)
	}
	if err := s.Remove(t.Context(), store.Bases, "b"); !errors.Is(err, store.ErrNotFound) ||
		err.Error() != "base b: not found in the store" {
		t.Errorf("Remove: %v", err)
	}
	if err := os.WriteFile(s.Path(store.Images, "web", "json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Load(store.Images, "web", &record{}); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("Load of a broken record: %v, want an error that is not ErrNotFound", err)
	}
}

// TestNamesThatCannotBe: a name is one file of the store's own directories, and
// never one that is being written.
func TestNamesThatCannotBe(t *testing.T) {
	s := open(t)
	run := begin(t, s)
	mustPublish(t, s, run, store.Images, "web", "disk")
	for _, name := range []string{"", ".", "..", ".new-1", "a/b", "../images/web", "/web", "a\x00b"} {
		if err := s.Load(store.Images, name, &record{}); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Load of %q = %v, want ErrNotFound", name, err)
		}
		if err := s.Remove(t.Context(), store.Images, name); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Remove of %q = %v, want ErrNotFound", name, err)
		}
		err := s.Publish(t.Context(), run.Path("none"), store.Images, name, record{}, nil)
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Publish as %q = %v, want ErrNotFound", name, err)
		}
	}
	if got, want := files(t, s, store.Images), []string{"web.json", "web.raw"}; !slices.Equal(got, want) {
		t.Errorf("left are %v, want %v", got, want)
	}
}

func TestRemove(t *testing.T) {
	s := open(t)
	run := begin(t, s)
	for _, name := range []string{"a", "b"} {
		file := run.Path("work.raw")
		if err := os.WriteFile(file, []byte("disk"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Publish(t.Context(), file, store.Bases, name, record{}, map[string][]byte{"sums": nil}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove(t.Context(), store.Bases, "a"); err != nil {
		t.Fatal(err)
	}
	if got, want := files(t, s, store.Bases), []string{"b.json", "b.raw", "b.sums"}; !slices.Equal(got, want) {
		t.Errorf("left are %v, want %v", got, want)
	}
}

// TestRemoveTakesTheRecordFirst: what cannot be removed whole does not exist any more.
func TestRemoveTakesTheRecordFirst(t *testing.T) {
	s := open(t)
	mustPublish(t, s, begin(t, s), store.Images, "web", "disk")
	raw := s.Path(store.Images, "web", "raw")
	if err := os.Remove(raw); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(raw, "in-the-way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), store.Images, "web"); err == nil {
		t.Error("removed a directory that is not empty")
	}
	if err := s.Load(store.Images, "web", &record{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Load = %v, want ErrNotFound", err)
	}
}

// TestPublishAgainstRemove: an object that exists has its disk, whoever was faster.
func TestPublishAgainstRemove(t *testing.T) {
	s := open(t)
	run := begin(t, s)
	for i := range 150 {
		mustPublish(t, s, run, store.Layers, "k", "old")
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Remove(t.Context(), store.Layers, "k"); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := publish(t.Context(), s, run, store.Layers, "k", "new"); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if s.Load(store.Layers, "k", &record{}) != nil {
			continue // removed
		}
		if _, err := os.Stat(s.Path(store.Layers, "k", "raw")); err != nil {
			t.Fatalf("round %d: a record without its disk: %v", i, err)
		}
	}
}

func TestPublishFails(t *testing.T) {
	s := open(t)
	run := begin(t, s)
	err := s.Publish(t.Context(), run.Path("missing"), store.Images, "web", record{}, nil)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Publish of nothing: %v", err)
	}
	file := run.Path("work.raw")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(t.Context(), file, store.Images, "web", func() {}, nil); err == nil {
		t.Error("published a record that is no JSON")
	}
	if names, err := s.Names(store.Images); len(names) != 0 || err != nil {
		t.Errorf("a failed Publish made %v, %v", names, err)
	}
	if err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := files(t, s, store.Images); len(got) != 0 {
		t.Errorf("Sweep left %v", got)
	}
}

// TestPublishBrokenOff while the disk gets its name, as by a crash: a layer is
// missing then, for its record may say other things than are true of the new
// disk; the rest is what it was.
func TestPublishBrokenOff(t *testing.T) {
	for k, stays := range map[store.Kind]bool{store.Layers: false, store.Images: true, store.Bases: true} {
		s := open(t)
		run := begin(t, s)
		mustPublish(t, s, run, k, "x", "old")
		raw := s.Path(k, "x", "raw")
		if err := os.Remove(raw); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(raw, "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := publish(t.Context(), s, run, k, "x", "new"); err == nil {
			t.Errorf("%s: published over a directory", k)
		}
		b, err := os.ReadFile(s.Path(k, "x", "json"))
		if stays && !strings.Contains(string(b), `"old"`) || !stays && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the record is %q, %v", k, b, err)
		}
	}
}

func TestPublishStopsWhenCancelled(t *testing.T) {
	s := open(t)
	run := begin(t, s)
	unlock, err := s.Lock(t.Context(), "publish")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if err := publish(ctx, s, run, store.Images, "web", "disk"); !errors.Is(err, cause) {
		t.Errorf("Publish = %v, want the cause", err)
	}
	if got := files(t, s, store.Images); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

// files lists what is in the directory of a kind, sorted.
func files(t *testing.T, s *store.Store, k store.Kind) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.Root(), string(k)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestConcurrentPublishAndSweepLoseNothing(t *testing.T) {
	s := open(t)
	const peers, goroutines, each = 2, 4, 15
	var others []*process
	for i := range peers {
		others = append(others, start(t, "publish", s.Root(), fmt.Sprintf("p%d", i)))
	}
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			run, err := s.Begin(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer run.Close()
			for i := range each {
				if err := publish(t.Context(), s, run, store.Layers, fmt.Sprintf("g%d-%d", g, i), "x"); err != nil {
					t.Error(err)
				}
				if err := s.Sweep(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, p := range others {
		p.stdin.Close()
	}
	for _, p := range others {
		p.finish(t)
	}
	wg.Wait()
	names, err := s.Names(store.Layers)
	if want := (peers + goroutines) * each; len(names) != want || err != nil {
		t.Errorf("%d layers, %v; want %d", len(names), err, want)
	}
	for _, n := range names {
		if b, err := os.ReadFile(s.Path(store.Layers, n, "raw")); string(b) != "x" {
			t.Errorf("layer %s holds %q, %v", n, b, err)
		}
	}
	if left, err := os.ReadDir(filepath.Join(s.Root(), "tmp")); err != nil || len(left) != 0 {
		t.Errorf("runs left %v, %v", left, err)
	}
}

func TestFreeIsWhatTheFilesystemHas(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Reflink)
	s := reopen(t, fixtures.ReflinkDir(t)) // where nobody else writes
	const slack = 16 << 20                 // XFS gives metadata back when it likes
	free, err := s.Free()
	if have := available(t, s.Root()); err != nil || max(free-have, have-free) > slack {
		t.Errorf("Free = %d, %v; the filesystem has %d", free, err, have)
	}
	if err := os.WriteFile(filepath.Join(s.Root(), "big"), make([]byte, 64<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if less, err := s.Free(); err != nil || less > free-64<<20+slack {
		t.Errorf("after writing 64 MiB Free = %d, %v; was %d", less, err, free)
	}
}
