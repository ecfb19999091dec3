package content

import (
	"errors"
	"iter"
	"slices"
	"testing"

	"github.com/imgmut/imgmut/mutate/reflink"
)

// TestChunksThatAreReadAgain: a chunk is read again if its bytes may be others
// than the parent's. One that is left out wrongly makes a wrong digest.
func TestChunksThatAreReadAgain(t *testing.T) {
	const (
		unwritten = 0x800 // FIEMAP_EXTENT_UNWRITTEN
		last      = 0x1   // FIEMAP_EXTENT_LAST
		place     = 1 << 30
		chunks    = 4
		half      = Chunk / 2
	)
	type extents = []reflink.Extent
	of := func(logical, physical, length int64, flags uint32) reflink.Extent {
		return reflink.Extent{Logical: logical, Physical: physical, Length: length, Flags: flags}
	}
	whole := extents{of(0, place, chunks*Chunk, 0)}
	for _, tc := range []struct {
		name          string
		before, after extents
		want          []int64
	}{
		{"two holes", nil, nil, nil},
		{"the same place", whole, whole, nil},
		{"it is shared since", whole, extents{of(0, place, chunks*Chunk, reflink.ExtentShared)}, nil},
		{"it is the last", whole, extents{of(0, place, chunks*Chunk, last)}, nil},
		{"two extents that touch", whole, extents{of(0, place, half, 0), of(half, place+half, chunks*Chunk-half, last)}, nil},
		{"two that meet at a border", whole, extents{of(0, place, Chunk, 0), of(Chunk, place+Chunk, 3*Chunk, 0)}, nil},
		{"many that touch", whole, extents{
			of(0, place, half, 0), of(half, place+half, 4096, 0), of(half+4096, place+half+4096, chunks*Chunk-half-4096, 0)},
			nil},

		{"another place", whole, extents{of(0, 2*place, chunks*Chunk, 0)}, []int64{0, 1, 2, 3}},
		{"half as long", whole, extents{of(0, place, 2*Chunk, 0)}, []int64{2, 3}},
		{"a block less", whole, extents{of(0, place, chunks*Chunk-4096, 0)}, []int64{3}},
		{"a hole more", extents{of(0, place, Chunk, 0), of(3*Chunk, 2*place, Chunk, 0)},
			extents{of(0, place, Chunk, 0)}, []int64{3}},
		{"a hole less", extents{of(0, place, Chunk, 0)}, whole, []int64{1, 2, 3}},
		{"a block written anew", whole, extents{
			of(0, place, Chunk, 0), of(Chunk, 9*place, 4096, 0), of(Chunk+4096, place+Chunk+4096, 3*Chunk-4096, 0)}, []int64{1}},
		{"the end of one chunk and the start of the next", whole, extents{
			of(0, place, Chunk-4096, 0), of(Chunk-4096, 9*place, 8192, 0), of(Chunk+4096, place+Chunk+4096, 3*Chunk-4096, 0)},
			[]int64{0, 1}},
		{"two blocks changed places", extents{of(0, place, 4096, 0), of(4096, place+4096, 4096, 0)},
			extents{of(0, place+4096, 4096, 0), of(4096, place, 4096, 0)}, []int64{0}},
		{"moved within the file", extents{of(0, place, 4096, 0)}, extents{of(4096, place, 4096, 0)}, []int64{0}},
		{"a gap on the disk", extents{of(0, place, 8192, 0)},
			extents{of(0, place, 4096, 0), of(4096, place+8192, 4096, 0)}, []int64{0}},
		{"a gap in the file", extents{of(0, place, 8192, 0)},
			extents{of(0, place, 4096, 0), of(8192, place+4096, 4096, 0)}, []int64{0}},
		{"reserved and not written", whole, extents{of(0, place, chunks*Chunk, unwritten)}, []int64{0, 1, 2, 3}},
		{"partly not written", extents{of(0, place, 8192, 0)},
			extents{of(0, place, 4096, 0), of(4096, place+4096, 4096, unwritten)}, []int64{0}},

		{"room behind the end", whole, append(slices.Clone(whole), of(chunks*Chunk, 5*place, Chunk, unwritten)), nil},
		{"an extent beyond the end", whole, extents{of(0, place, 9*Chunk, 0)}, nil},
	} {
		if got := list(t, tc.before, tc.after, chunks); !slices.Equal(got, tc.want) {
			t.Errorf("%s: chunks %d are read again, want %d", tc.name, got, tc.want)
		}
	}
	// What has no place of its own is read again, though it looks the same.
	for _, flag := range []uint32{
		reflink.ExtentUnknown, reflink.ExtentDelalloc, reflink.ExtentEncoded, reflink.ExtentInline, // and not
		reflink.ExtentShared, unwritten, last,
	} {
		var want []int64
		if flag != reflink.ExtentShared && flag != unwritten && flag != last {
			want = []int64{1}
		}
		same := extents{of(Chunk, place, Chunk, flag)}
		if got := list(t, same, same, chunks); !slices.Equal(got, want) {
			t.Errorf("flag %#x in both: chunks %d are read again, want %d", flag, got, want)
		}
	}
}

// list is the list of chunks of which [changed] tells.
func list(t *testing.T, before, after []reflink.Extent, chunks int64) (numbers []int64) {
	t.Helper()
	for n, err := range changed(each(before), each(after), chunks) {
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

func each(extents []reflink.Extent) iter.Seq2[reflink.Extent, error] {
	return func(yield func(reflink.Extent, error) bool) {
		for _, e := range extents {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// TestChangedEndsWithAnError: extents of one of the files that cannot be read to
// their end leave nothing to be taken for unchanged.
func TestChangedEndsWithAnError(t *testing.T) {
	broken := errors.New("broken")
	good := each([]reflink.Extent{{Physical: 1 << 30, Length: 4 * Chunk}})
	bad := func(yield func(reflink.Extent, error) bool) {
		if yield(reflink.Extent{Physical: 1 << 30, Length: Chunk}, nil) {
			yield(reflink.Extent{}, broken)
		}
	}
	for _, pair := range [][2]iter.Seq2[reflink.Extent, error]{{good, bad}, {bad, good}} {
		var last error
		for _, last = range changed(pair[0], pair[1], 4) {
		}
		if !errors.Is(last, broken) {
			t.Errorf("ended with %v, want the error", last)
		}
	}
}
