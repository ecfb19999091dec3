package mutate

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/record"
)

// TestNothingRunsAfterABuild: a host that begins beside it has begun, or failed,
// when the build has ended, however soon that fails.
func TestNothingRunsAfterABuild(t *testing.T) {
	w := newWorld(t)
	var begun atomic.Bool
	w.Host = func(context.Context) (Host, error) {
		time.Sleep(200 * time.Millisecond)
		begun.Store(true)
		return nil, errors.New("no host")
	}
	p := &plan{base: &record.Base{Digest: strings.Repeat("ab", 32)}, steps: make([]stepLink, 1)}
	base := w.Catalog().BaseFile(p.base.Digest)
	if err := os.WriteFile(base, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := w.begin(t.Context(), p) // which sweeps away what has no record
	if err != nil {
		t.Fatal(err)
	}
	if err := b.layers(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("layers = %v, want that there is no file of the base", err)
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
	if !begun.Load() {
		t.Error("the build has ended, and its host still begins")
	}
}
