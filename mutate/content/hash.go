package content

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/imgmut/imgmut/mutate/reflink"
)

// hasher reads chunks of a file, on all cores.
type hasher struct {
	f        *os.File
	to       *reflink.Writer // a file that gets them as well; nil if none does
	size     int64
	progress func(done, total int64) // nil if nobody wants to know
	total    int64                   // bytes of all chunks, for progress

	mu    sync.Mutex
	taken int64 // chunks that are read, or being read
	read  []chunk
	err   error // the first
}

// hash gives the sums of the chunks todo, in order.
func (h *hasher) hash(ctx context.Context, todo iter.Seq2[int64, error]) ([]chunk, error) {
	next, stop := iter.Pull2(todo)
	defer stop()
	take := func() (number int64, ok bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.err != nil {
			return 0, false
		}
		number, h.err, ok = next()
		if ok && h.err == nil {
			h.taken++
			h.err = h.check(ctx)
		}
		return number, ok && h.err == nil
	}
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			buf := make([]byte, Chunk)
			for number, ok := take(); ok; number, ok = take() {
				c, err := h.chunk(number, buf)
				h.done(c, err)
			}
		})
	}
	wg.Wait()
	slices.SortFunc(h.read, func(a, b chunk) int { return cmp.Compare(a.number, b.number) })
	return h.read, h.err
}

// check says why no more is to be read, if so.
func (h *hasher) check(ctx context.Context) error {
	if ctx.Err() != nil {
		return fmt.Errorf("digest %s: %w", h.f.Name(), context.Cause(ctx))
	}
	return checkData(h.f, h.taken)
}

// done takes the sum of a chunk, or why there is none.
func (h *hasher) done(c chunk, err error) {
	h.mu.Lock()
	if h.read = append(h.read, c); h.err == nil {
		h.err = err
	}
	done := int64(len(h.read)) * Chunk
	h.mu.Unlock()
	if h.progress != nil {
		h.progress(done, h.total)
	}
}

// zeros is what a chunk without a sum reads as.
var zeros [Chunk]byte

func (h *hasher) chunk(number int64, buf []byte) (chunk, error) {
	at := number * Chunk
	b := buf[:min(Chunk, h.size-at)]
	if _, err := io.ReadFull(io.NewSectionReader(h.f, at, int64(len(b))), b); err != nil {
		return chunk{}, fmt.Errorf("digest %s: read at byte %d: %w", h.f.Name(), at, err)
	}
	if bytes.Equal(b, zeros[:len(b)]) {
		return chunk{number: number}, nil
	}
	if h.to != nil {
		if _, err := h.to.WriteAt(b, at); err != nil {
			return chunk{}, fmt.Errorf("copy %s: %w", h.f.Name(), err)
		}
	}
	return chunk{number, sha256.Sum256(b)}, nil
}
