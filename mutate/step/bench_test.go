package step_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/statcache"
	"github.com/imgmut/imgmut/mutate/step"
)

// BenchmarkDigest: an unchanged tree of 11,000 files.
func BenchmarkDigest(b *testing.B) {
	dir := b.TempDir()
	for i := range 110 {
		d := fmt.Sprintf("%s/tree/d%d", dir, i)
		if err := os.MkdirAll(d, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range 100 {
			if err := os.WriteFile(fmt.Sprintf("%s/f%d", d, j), []byte(d), 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	r, err := os.OpenRoot(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	cache := b.TempDir()
	digest := func() {
		src := &step.Source{Root: r, Cache: statcache.New(cache)}
		if _, err := src.Digest(b.Context(), []step.From{{Path: "tree"}}); err != nil {
			b.Fatal(err)
		}
	}
	time.Sleep(50 * time.Millisecond) // what is younger is not remembered
	digest()
	for b.Loop() {
		digest()
	}
}
