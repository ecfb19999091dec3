package reflink_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgmut/imgmut/mutate/reflink"
)

// TestShareCopiesTheLeast of a range: what lies between blocks, wherever it is.
func TestShareCopiesTheLeast(t *testing.T) {
	dir := reflinkDir(t)
	const size = 64 * block
	src := create(t, filepath.Join(dir, "src"))
	data := pattern(1, size+700)
	writeAt(t, src, 0, data)
	for _, tc := range []struct {
		name   string
		offset int64
		r      reflink.Range
		copied int64 // blocks of the destination that are its own
	}{
		{"whole blocks", 0, reflink.Range{Offset: block, Length: 10 * block}, 0},
		{"whole blocks, elsewhere", 3 * block, reflink.Range{Offset: block, Length: 10 * block}, 0},
		{"an end between blocks", 0, reflink.Range{Offset: block, Length: 10*block + 512}, 1},
		{"the end of the file", 0, reflink.Range{Offset: block, Length: size - block + 700}, 1},
		{"a start between blocks", 512, reflink.Range{Offset: block + 512, Length: 10*block - 512}, 1},
		{"both", 512, reflink.Range{Offset: block + 512, Length: 10 * block}, 2},
		{"one sector", 512, reflink.Range{Offset: block + 512, Length: 512}, 1},
		{"two sectors of two blocks", 3584, reflink.Range{Offset: block - 512, Length: 1024}, 2},
		{"nothing", 0, reflink.Range{Offset: 512, Length: 0}, 0},
		{"a start that cannot be shared", 0, reflink.Range{Offset: 512, Length: 10 * block}, 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dst := create(t, filepath.Join(mkdir(t, dir), "dst"))
			truncate(t, dst, tc.offset+tc.r.Length) // or XFS takes room for more
			if err := reflink.Share(t.Context(), dst, tc.offset, src, tc.r); err != nil {
				t.Fatal(err)
			}
			want := append(make([]byte, tc.offset), data[tc.r.Offset:tc.r.Offset+tc.r.Length]...)
			if got := read(t, dst); !bytes.Equal(got, want) {
				t.Errorf("it has %d bytes, want %d, or others", len(got), len(want))
			}
			var own int64
			for _, e := range extents(t, dst) {
				if e.Flags&reflink.ExtentShared == 0 {
					own += e.Length / block
				}
			}
			if own != tc.copied {
				t.Errorf("%d blocks are its own, want %d", own, tc.copied)
			}
		})
	}
}

// TestShareWhereNothingCanBeShared copies, and leaves holes out.
func TestShareWhereNothingCanBeShared(t *testing.T) {
	dir := t.TempDir()
	src, dst := create(t, filepath.Join(dir, "src")), create(t, filepath.Join(dir, "dst"))
	truncate(t, src, 32<<20)
	writeAt(t, src, 1<<20, pattern(1, 3*block))
	writeAt(t, src, 20<<20, pattern(2, 5*block))
	r := reflink.Range{Offset: 1<<20 + 512, Length: 19<<20 + 700}
	if err := reflink.Share(t.Context(), dst, 7, src, r); err != nil {
		t.Fatal(err)
	}
	want := append(make([]byte, 7), read(t, src)[r.Offset:r.Offset+r.Length]...)
	if got := read(t, dst); !bytes.Equal(got, want) {
		t.Errorf("it has %d bytes, want %d, or others", len(got), len(want))
	}
	if used := usage(t, dst); used > 8*block {
		t.Errorf("it occupies %d bytes", used)
	}
}

// TestShareMovesBytes of any range, whatever of it can be shared here.
func TestShareMovesBytes(t *testing.T) {
	dir := t.TempDir()
	src := create(t, filepath.Join(dir, "src"))
	data := pattern(1, 8*block)
	writeAt(t, src, 0, data)
	for _, tc := range []struct {
		name   string
		offset int64
		r      reflink.Range
	}{
		{"whole blocks", 2 * block, reflink.Range{Offset: block, Length: 3 * block}},
		{"a start and an end between blocks", 512, reflink.Range{Offset: block + 512, Length: 3*block + 1}},
		{"parts of two blocks", 3*block - 512, reflink.Range{Offset: block - 512, Length: 1024}},
		{"less than a block", 512, reflink.Range{Offset: block + 512, Length: 100}},
		{"a start that cannot be shared", 0, reflink.Range{Offset: 512, Length: 3 * block}},
		{"nothing", 512, reflink.Range{Offset: 512}}, // not all up to the end
	} {
		t.Run(tc.name, func(t *testing.T) {
			dst := create(t, filepath.Join(mkdir(t, dir), "dst"))
			truncate(t, dst, tc.offset)
			if err := reflink.Share(t.Context(), dst, tc.offset, src, tc.r); err != nil {
				t.Fatal(err)
			}
			want := append(make([]byte, tc.offset), data[tc.r.Offset:tc.r.Offset+tc.r.Length]...)
			if got := read(t, dst); !bytes.Equal(got, want) {
				t.Errorf("it has %d bytes, want %d, or others", len(got), len(want))
			}
		})
	}
}

func TestShareThatFails(t *testing.T) {
	dir := t.TempDir()
	src, dst := create(t, filepath.Join(dir, "src")), create(t, filepath.Join(dir, "dst"))
	writeAt(t, src, 0, pattern(1, 9*block))
	cause := errors.New("the user pressed ^C")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	r := reflink.Range{Offset: 1, Length: 5 * block}
	if err := reflink.Share(ctx, dst, 0, src, r); !errors.Is(err, cause) {
		t.Errorf("error %v, want the cause", err)
	}
	closed := create(t, filepath.Join(dir, "closed"))
	closed.Close()
	for name, pair := range map[string][2]*os.File{"to": {closed, src}, "from": {dst, closed}} {
		if err := reflink.Share(t.Context(), pair[0], 0, pair[1], r); err == nil {
			t.Errorf("shared %s a closed file", name)
		}
	}
}
