package reflink

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSplit: what is shared are whole blocks of both files, and as many as there
// are; the three parts are the range, in order, and keep their distances.
func TestSplit(t *testing.T) {
	const block = 4096
	of := func(offset, length, to int64) part { return part{Range{offset, length}, to} }
	for _, c := range []struct {
		name               string
		offset             int64
		r                  Range
		head, blocks, tail part
	}{
		{"whole blocks", 0, Range{0, 3 * block},
			of(0, 0, 0), of(0, 3*block, 0), of(3*block, 0, 3*block)},
		{"whole blocks, elsewhere", 5 * block, Range{block, 3 * block},
			of(block, 0, 5*block), of(block, 3*block, 5*block), of(4*block, 0, 8*block)},
		{"an end between blocks", block, Range{2 * block, 3*block + 512},
			of(2*block, 0, block), of(2*block, 3*block, block), of(5*block, 512, 4*block)},
		{"a start between blocks", 512, Range{2*block + 512, 4*block - 512},
			of(2*block+512, block-512, 512), of(3*block, 3*block, block), of(6*block, 0, 4*block)},
		{"both", 3*block - 1, Range{2*block - 1, block + 2},
			of(2*block-1, 1, 3*block-1), of(2*block, block, 3*block), of(3*block, 1, 4*block)},
		{"a start that is a block only there", block, Range{512, 5 * block},
			of(512, 5*block, block), of(512+5*block, 0, 6*block), of(512+5*block, 0, 6*block)},
		{"a start that is a block only here", 512, Range{block, 5 * block},
			of(block, 5*block, 512), of(6*block, 0, 512+5*block), of(6*block, 0, 512+5*block)},
		{"less than a block", 512, Range{block + 512, 1024},
			of(block+512, 1024, 512), of(block+1536, 0, 1536), of(block+1536, 0, 1536)},
		{"parts of two blocks", block - 512, Range{3*block - 512, 1024},
			of(3*block-512, 512, block-512), of(3*block, 0, block), of(3*block, 512, block)},
		{"nothing", block, Range{block, 0},
			of(block, 0, block), of(block, 0, block), of(block, 0, block)},
	} {
		head, blocks, tail := split(c.offset, c.r, block)
		if head != c.head || blocks != c.blocks || tail != c.tail {
			t.Errorf("%s: parts %v, %v, %v; want %v, %v, %v", c.name, head, blocks, tail, c.head, c.blocks, c.tail)
		}
	}
}

// TestDataInAPart of a file: what of it lies there, and no part of nothing.
func TestDataInAPart(t *testing.T) {
	const block = 64 << 10 // whole blocks of any filesystem
	f := newFile(t)
	for _, at := range []int64{2 * block, 6 * block} {
		if _, err := f.WriteAt(make([]byte, 2*block), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(10 * block); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		within Range
		want   []Range
	}{
		{"all", Range{0, 10 * block}, []Range{{2 * block, 2 * block}, {6 * block, 2 * block}}},
		{"a hole", Range{0, block}, nil},
		{"a hole up to data", Range{0, 2 * block}, nil},
		{"a hole and a byte", Range{0, 2*block + 1}, []Range{{2 * block, 1}}},
		{"up to the end of data", Range{block, 3 * block}, []Range{{2 * block, 2 * block}}},
		{"up to other data", Range{3*block + 5, 3*block - 5}, []Range{{3*block + 5, block - 5}}},
		{"the end of one and the start of another", Range{4*block - 1, 2*block + 2},
			[]Range{{4*block - 1, 1}, {6 * block, 1}}},
		{"the last hole", Range{8 * block, 2 * block}, nil},
		{"over the end", Range{7 * block, 9 * block}, []Range{{7 * block, block}}},
		{"behind the end", Range{10 * block, block}, nil},
		{"nothing, in data", Range{3 * block, 0}, nil},
		{"nothing, in a hole", Range{block, 0}, nil},
	} {
		var got []Range
		for r, err := range dataIn(t.Context(), f, c.within) {
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			got = append(got, r)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: data at %v, want %v", c.name, got, c.want)
		}
	}
}

// TestWriterSyncsWithEachWindow, for less would have a copy wait for the disk
// all the time.
func TestWriterSyncsWithEachWindow(t *testing.T) {
	w := NewWriter(newFile(t))
	for _, c := range []struct {
		n    int64
		sync bool // begins
	}{
		{1, false}, {window - 2, false}, {1, true},
		{window - 1, false}, {1, true},
		{1, false}, {2 * window, true}, {window, true},
	} {
		before := w.running
		if w.wrote(c.n); (w.running != before) != c.sync {
			t.Errorf("after %d bytes more a sync begins: %t, want %t", c.n, w.running != before, c.sync)
		}
	}
	if err := w.Wait(); err != nil {
		t.Error(err)
	}
}

// TestWriterThatFails: the first error is kept, and says of which file it is.
func TestWriterThatFails(t *testing.T) {
	_, pipe, err := os.Pipe() // which has no disk to sync to
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	w := NewWriter(pipe)
	w.wrote(window)
	first := w.Wait()
	if !errors.Is(first, unix.EINVAL) || !strings.Contains(first.Error(), "write out "+pipe.Name()) {
		t.Fatalf("error %v, want EINVAL of %s", first, pipe.Name())
	}
	w.wrote(window)
	if err := w.Wait(); err != first {
		t.Errorf("after another one the error is %v, want the first: %v", err, first)
	}
	w = NewWriter(newFile(t))
	w.err = first
	w.wrote(window)
	if err := w.Wait(); err != first {
		t.Errorf("after a sync that succeeds the error is %v, want the first: %v", err, first)
	}
}

func newFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
