package tool

import (
	"runtime"
	"sync"
)

// Each calls f, which runs a program, for all items, and gives the results in the
// items' order. Two for each processor run at once: a program often waits for the
// disk, and a disk may have 255 partitions. The error is that of the first item
// that has one.
func Each[T, R any](items []T, f func(T) (R, error)) ([]R, error) {
	results, errs := make([]R, len(items)), make([]error, len(items))
	running := make(chan struct{}, 2*runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i, item := range items {
		running <- struct{}{}
		wg.Go(func() {
			results[i], errs[i] = f(item)
			<-running
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return results, nil
}
