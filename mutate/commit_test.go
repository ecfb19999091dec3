package mutate

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/record"
)

// TestFailedCommitIsKnownAtOnce: the steps that follow would run for nothing.
func TestFailedCommitIsKnownAtOnce(t *testing.T) {
	w := newWorld(t)
	run, err := w.Store.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	c := newCommitter(t.Context(), w.Catalog())
	writeFile(t, run.Path("good"), "disk")
	c.add(run.Path("good"), "good", record.Layer{Material: record.Material{Kind: "run"}, Made: day})
	c.add(run.Path("missing"), "missing", record.Layer{})
	for start := time.Now(); c.failed() == nil; time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal("a commit failed, and that is not known")
		}
	}
	writeFile(t, run.Path("orphan"), "disk")
	c.add(run.Path("orphan"), "orphan", record.Layer{})
	for range 2 {
		if err := c.wait(); !errors.Is(err, os.ErrNotExist) || err != c.failed() {
			t.Errorf("wait = %v, want why the first commit failed", err)
		}
	}
	for k, want := range map[record.Key]bool{"good": true, "missing": false, "orphan": false} {
		if _, ok, err := w.Catalog().FindLayer(k); ok != want || err != nil {
			t.Errorf("layer %s is there: %t, %v; want %t", k, ok, err, want)
		}
	}
}
