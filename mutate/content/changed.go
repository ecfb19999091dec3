package content

import (
	"errors"
	"iter"
	"math"
	"slices"

	"github.com/imgmut/imgmut/mutate/reflink"
)

// changed lists the chunks in which two files may differ, given where the bytes
// of each lie on the disk. It walks along both at once and holds no more than
// one chunk's extents of each.
func changed(before, after iter.Seq2[reflink.Extent, error], chunks int64) iter.Seq2[int64, error] {
	return func(yield func(int64, error) bool) {
		was, is := follow(before, chunks), follow(after, chunks)
		defer was.stop()
		defer is.stop()
		for {
			if err := errors.Join(was.err, is.err); err != nil {
				yield(0, err)
				return
			}
			at := min(was.chunk, is.chunk)
			if at == end {
				return
			}
			same := was.chunk == is.chunk && slices.Equal(was.extents, is.extents) && !slices.ContainsFunc(is.extents, unplaced)
			if !same && !yield(at, nil) {
				return
			}
			was.leave(at)
			is.leave(at)
		}
	}
}

// unplaced says that an extent's physical address does not tell its bytes.
func unplaced(e reflink.Extent) bool {
	return e.Flags&(reflink.ExtentUnknown|reflink.ExtentDelalloc|reflink.ExtentEncoded|reflink.ExtentInline) != 0
}

// place is where the bytes of one chunk lie.
type place struct {
	chunk   int64
	extents []reflink.Extent
}

// end is the chunk behind the last.
const end = math.MaxInt64

// walker is at one chunk of a file.
type walker struct {
	place
	err  error
	next func() (place, error, bool)
	stop func()
}

func follow(extents iter.Seq2[reflink.Extent, error], chunks int64) *walker {
	w := new(walker)
	w.next, w.stop = iter.Pull2(byChunk(extents, chunks))
	w.advance()
	return w
}

// leave goes on if the walker is at that chunk.
func (w *walker) leave(chunk int64) {
	if w.chunk == chunk {
		w.advance()
	}
}

// advance goes to the next chunk with extents.
func (w *walker) advance() {
	var more bool
	if w.place, w.err, more = w.next(); !more {
		w.place = place{chunk: end}
	}
}

// byChunk cuts the extents of a file at the borders of its chunks. Chunks that
// have none are left out.
func byChunk(extents iter.Seq2[reflink.Extent, error], chunks int64) iter.Seq2[place, error] {
	const own = ^uint32(reflink.ExtentShared | 1) // who else shares it, and being last, are not about the bytes
	return func(yield func(place, error) bool) {
		var p place
		for e, err := range extents {
			if err != nil {
				yield(place{}, err)
				return
			}
			for e.Flags &= own; e.Length > 0 && e.Logical/Chunk < chunks; { // preallocation may lie beyond the end
				c := e.Logical / Chunk
				if c != p.chunk {
					if p.extents != nil && !yield(p, nil) {
						return
					}
					p = place{chunk: c}
				}
				part := e
				part.Length = min(e.Length, (c+1)*Chunk-e.Logical)
				p.extents = join(p.extents, part)
				e.Logical, e.Physical, e.Length = e.Logical+part.Length, e.Physical+part.Length, e.Length-part.Length
			}
		}
		if p.extents != nil {
			yield(p, nil)
		}
	}
}

// join appends e, merged with the last extent where the two touch: the same
// blocks may be mapped by one extent in one file and by two in the other.
func join(list []reflink.Extent, e reflink.Extent) []reflink.Extent {
	if n := len(list) - 1; n >= 0 {
		l := &list[n]
		if l.Flags == e.Flags && l.Logical+l.Length == e.Logical && l.Physical+l.Length == e.Physical {
			l.Length += e.Length
			return list
		}
	}
	return append(list, e)
}
