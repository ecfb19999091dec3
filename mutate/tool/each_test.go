package tool

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// TestEach: some at once, never all, and what they give is in order.
func TestEach(t *testing.T) {
	var running, most atomic.Int64
	items := make([]int, 100)
	want := make([]string, len(items))
	for i := range items {
		items[i], want[i] = i, fmt.Sprint(i)
	}
	got, err := Each(items, func(i int) (string, error) {
		n := running.Add(1)
		for m := most.Load(); m < n && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(time.Millisecond)
		running.Add(-1)
		return fmt.Sprint(i), nil
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Each = %q, %v", got, err)
	}
	if n, limit := most.Load(), int64(2*runtime.GOMAXPROCS(0)); n < 2 || n > limit {
		t.Errorf("%d ran at once, want 2 to %d", n, limit)
	}
}

func TestEachFails(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	_, err := Each([]error{nil, first, second, nil}, func(err error) (int, error) { return 0, err })
	if err != first {
		t.Errorf("Each = %v, want %v", err, first)
	}
}
