package reflink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/reflink"
)

func TestDataListsWhatIsNoHole(t *testing.T) {
	dir := t.TempDir()
	for i, c := range []struct {
		name  string
		size  int64
		write []reflink.Range
		want  []reflink.Range
	}{
		{"empty", 0, nil, nil},
		{"only a hole", 1 << 20, nil, nil},
		{"no hole", 2 * block, []reflink.Range{{0, 2 * block}}, []reflink.Range{{0, 2 * block}}},
		{"hole first and last", 1 << 20, []reflink.Range{{3 * block, block}}, []reflink.Range{{3 * block, block}}},
		{"two with an unaligned end", 9*block + 5, []reflink.Range{{0, block}, {8 * block, block + 5}},
			[]reflink.Range{{0, block}, {8 * block, block + 5}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := create(t, filepath.Join(dir, fmt.Sprint(i)))
			truncate(t, f, c.size)
			for _, r := range c.write {
				writeAt(t, f, r.Offset, pattern(1, int(r.Length)))
			}
			if got := data(t, f); !slices.Equal(got, c.want) {
				t.Errorf("Data = %v; want %v", got, c.want)
			}
		})
	}
}

// TestCopyEqualsOriginal copies random sparse files.
func TestCopyEqualsOriginal(t *testing.T) {
	dir := t.TempDir()
	copyRandom(t, [][2]string{{dir, dir}})
}

// TestCopyAcrossFilesystems copies them into each kind of filesystem from each.
func TestCopyAcrossFilesystems(t *testing.T) {
	ext4, xfs := t.TempDir(), reflinkDir(t)
	copyRandom(t, [][2]string{{ext4, xfs}, {xfs, ext4}, {xfs, xfs}})
}

// copyRandom copies files from one directory to another, by turns of each pair.
func copyRandom(t *testing.T, pairs [][2]string) {
	t.Helper()
	const seed = 20260101
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range 30 {
		dirs := pairs[i%len(pairs)]
		src := randomSparse(t, rnd, filepath.Join(dirs[0], fmt.Sprintf("src-%d", i)))
		dst := create(t, filepath.Join(dirs[1], fmt.Sprintf("dst-%d", i)))
		if err := reflink.Copy(t.Context(), dst, src, nil); err != nil {
			t.Fatalf("seed %d, file %d: %v", seed, i, err)
		}
		if out, err := exec.Command("cmp", src.Name(), dst.Name()).CombinedOutput(); err != nil {
			t.Fatalf("seed %d, file %d: %s", seed, i, out)
		}
		if a, b := usage(t, src), usage(t, dst); b > a+64<<10 {
			t.Errorf("seed %d, file %d: the copy occupies %d bytes, its source %d", seed, i, b, a)
		}
		os.Remove(src.Name())
		os.Remove(dst.Name())
	}
}

// randomSparse makes a file of holes, data and written zeros, none of them aligned.
func randomSparse(t *testing.T, rnd *rand.Rand, path string) *os.File {
	t.Helper()
	f := create(t, path)
	size := rnd.Int64N(6 << 20)
	truncate(t, f, size)
	for range rnd.IntN(12) {
		if size == 0 {
			break
		}
		off := rnd.Int64N(size)
		b := make([]byte, rnd.Int64N(min(size-off, 300<<10))+1)
		if rnd.IntN(3) > 0 {
			for i := range b {
				b[i] = byte(rnd.Uint32())
			}
		}
		writeAt(t, f, off, b)
	}
	return f
}

func TestCopyKeepsHolesAndLeavesZerosOut(t *testing.T) {
	dir := t.TempDir()
	const size = 64<<20 + 123
	src, dst := create(t, filepath.Join(dir, "src")), create(t, filepath.Join(dir, "dst"))
	truncate(t, src, size)
	writeAt(t, src, 1<<20, pattern(1, 128<<10))
	writeAt(t, src, 16<<20, make([]byte, 8<<20)) // zeros as a download leaves them
	writeAt(t, src, size-10, pattern(2, 10))
	if err := reflink.Copy(t.Context(), dst, src, nil); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cmp", src.Name(), dst.Name()).CombinedOutput(); err != nil {
		t.Errorf("%s", out)
	}
	if used := usage(t, dst); used > 256<<10 {
		t.Errorf("the copy occupies %d bytes, its data are 132 KiB", used)
	}
}

// TestCopyLeavesNoByteOut: a byte that is not zero counts wherever it is, also in
// the end of a file of an odd size; equal bytes beside each other count as well.
func TestCopyLeavesNoByteOut(t *testing.T) {
	dir := t.TempDir()
	const size = 192<<10 + 5 // three times what may be left out, and a rest
	places := []int64{0, 1, 7, 8, 64<<10 - 1, 64 << 10, 100_000, 128<<10 - 1, size - 6, size - 5, size - 2, size - 1}
	for i, at := range places {
		for length := int64(1); length <= 8 && at+length <= size; length++ {
			src := create(t, filepath.Join(dir, fmt.Sprintf("src-%d-%d", i, length)))
			dst := create(t, filepath.Join(dir, fmt.Sprintf("dst-%d-%d", i, length)))
			want := make([]byte, size)
			for j := range length {
				want[at+j] = 7
			}
			writeAt(t, src, 0, want)
			if err := reflink.Copy(t.Context(), dst, src, nil); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(read(t, dst), want) {
				t.Errorf("%d bytes at %d are not in the copy", length, at)
			}
			written, err := reflink.DataSize(t.Context(), dst)
			if err != nil {
				t.Fatal(err)
			}
			if written > 128<<10 {
				t.Errorf("%d bytes at %d: %d bytes are written", length, at, written)
			}
			src.Close()
			dst.Close()
		}
	}
}

func TestCopyOfEmptyFile(t *testing.T) {
	dir := t.TempDir()
	src, dst := create(t, filepath.Join(dir, "src")), create(t, filepath.Join(dir, "dst"))
	if err := reflink.Copy(t.Context(), dst, src, nil); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dst); len(got) != 0 {
		t.Errorf("the copy has %d bytes", len(got))
	}
}

// TestCopyThatFailsSaysWhere: a file that cannot be read or written is named.
func TestCopyThatFailsSaysWhere(t *testing.T) {
	dir := t.TempDir()
	src := create(t, filepath.Join(dir, "src"))
	writeAt(t, src, 0, pattern(1, 100))
	readOnly, err := os.Open(create(t, filepath.Join(dir, "dst")).Name())
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	if err := reflink.Copy(t.Context(), readOnly, src, nil); err == nil {
		t.Error("copied to a file that is not open for writing")
	}
	if err := reflink.CopyRange(t.Context(), readOnly, 0, src, reflink.Range{Length: 100}, nil); err == nil {
		t.Error("copied a range to a file that is not open for writing")
	}
	writeOnly, err := os.OpenFile(src.Name(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writeOnly.Close()
	to, r := create(t, filepath.Join(dir, "to")), reflink.Range{Offset: 40, Length: 10}
	err = reflink.CopyRange(t.Context(), to, 0, writeOnly, r, nil)
	if err == nil || !strings.Contains(err.Error(), "byte 40") {
		t.Errorf("error %v of a range that cannot be read", err)
	}
	closed := create(t, filepath.Join(dir, "closed"))
	closed.Close()
	if _, err := reflink.DataSize(t.Context(), closed); err == nil {
		t.Error("a closed file has data")
	}
	if err := reflink.Copy(t.Context(), create(t, filepath.Join(dir, "of-closed")), closed, nil); err == nil {
		t.Error("copied a closed file")
	}
}

func TestCopyProgressEndsAtTotal(t *testing.T) {
	dir := t.TempDir()
	src, dst := create(t, filepath.Join(dir, "src")), create(t, filepath.Join(dir, "dst"))
	truncate(t, src, 1<<30)
	writeAt(t, src, 0, pattern(1, 3<<20))
	writeAt(t, src, 512<<20, pattern(2, 2*block))
	const want = 3<<20 + 2*block // holes are no work
	var last int64
	err := reflink.Copy(t.Context(), dst, src, func(done, total int64) {
		if total != want || done <= last || done > total {
			t.Errorf("progress %d of %d after %d, want a total of %d", done, total, last, want)
		}
		last = done
	})
	if err != nil || last != want {
		t.Errorf("ended at %d of %d, %v", last, want, err)
	}
}

func TestCopyStopsWhenCancelled(t *testing.T) {
	dir := t.TempDir()
	src, dst := create(t, filepath.Join(dir, "src")), create(t, filepath.Join(dir, "dst"))
	writeAt(t, src, 0, pattern(1, 8<<20))
	cause := errors.New("the user pressed ^C")
	ctx, cancel := context.WithCancelCause(t.Context())
	var done int64
	err := reflink.Copy(ctx, dst, src, func(n, _ int64) { done = n; cancel(cause) })
	if !errors.Is(err, cause) {
		t.Errorf("%v, want the cause", err)
	}
	if done >= 8<<20 {
		t.Error("copied everything all the same")
	}
}

// TestCopyRangeLeavesHolesUnread: a range costs by the data in it. Read as bytes,
// this hole would take hours.
func TestCopyRangeLeavesHolesUnread(t *testing.T) {
	dir := reflinkDir(t)
	src, dst := create(t, filepath.Join(dir, "src")), create(t, filepath.Join(dir, "dst"))
	const size, place = 32 << 40, 20 << 40
	truncate(t, src, size)
	truncate(t, dst, size)
	writeAt(t, src, 0, pattern(1, block)) // outside of the range
	writeAt(t, src, place, pattern(2, 3*block))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r := reflink.Range{Offset: block, Length: place} // to the end of the first of three blocks
	if err := reflink.CopyRange(ctx, dst, 0, src, r, nil); err != nil {
		t.Fatal(err)
	}
	if got, want := data(t, dst), []reflink.Range{{Offset: place - block, Length: block}}; !slices.Equal(got, want) {
		t.Errorf("the copy has data at %v, want %v", got, want)
	}
	got := make([]byte, block)
	if _, err := dst.ReadAt(got, place-block); err != nil || !bytes.Equal(got, pattern(2, block)) {
		t.Errorf("the range arrived changed (%v)", err)
	}
}

// TestListsEndWithTheContext: a file may have so many ranges and extents that
// listing them takes minutes.
func TestListsEndWithTheContext(t *testing.T) {
	f := create(t, filepath.Join(mappedDir(t), "f"))
	const n = 3000 // extents, more than two calls give
	truncate(t, f, 2*n*block)
	for i := range int64(n) {
		writeAt(t, f, 2*i*block, []byte{1})
	}
	cause := errors.New("the user pressed ^C")
	ctx, cancel := context.WithCancelCause(t.Context())
	ranges, extents := 0, 0
	var err error
	for _, err = range reflink.Data(ctx, f) {
		if ranges++; ranges == 10 {
			cancel(cause)
		}
	}
	if !errors.Is(err, cause) || ranges > 11 {
		t.Errorf("ranges ended after %d with %v, want the cause at once", ranges, err)
	}
	ctx, cancel = context.WithCancelCause(t.Context())
	defer cancel(nil)
	for _, err = range reflink.Extents(ctx, f) {
		if extents++; extents == 10 {
			cancel(cause)
		}
	}
	if !errors.Is(err, cause) || extents == n {
		t.Errorf("extents ended after %d with %v, want the cause", extents, err)
	}
}

// TestCopyWritesOut: what is left to the fsync that follows a copy is little, for
// nothing can interrupt that.
func TestCopyWritesOut(t *testing.T) {
	dir := t.TempDir()
	src, dst := create(t, filepath.Join(dir, "src")), create(t, filepath.Join(dir, "dst"))
	for i := range int64(20) {
		writeAt(t, src, i*8<<20, pattern(byte(i), 8<<20))
	}
	if err := reflink.Copy(t.Context(), dst, src, nil); err != nil {
		t.Fatal(err)
	}
	var whole struct{ offset, length uint64 }               // zeros: all of the file
	var stat struct{ cache, dirty, writeback, _, _ uint64 } // pages
	_, _, errno := unix.Syscall6(unix.SYS_CACHESTAT, dst.Fd(), uintptr(unsafe.Pointer(&whole)), uintptr(unsafe.Pointer(&stat)), 0, 0, 0)
	if errno == unix.ENOSYS {
		t.Skip("this kernel is older than cachestat (Linux 6.5)")
	}
	if errno != 0 {
		t.Fatal(errno)
	}
	if left := (stat.dirty + stat.writeback) * uint64(os.Getpagesize()); stat.cache == 0 || left > 80<<20 {
		t.Errorf("of 160 MiB %d are still to be written", left>>20)
	}
}

func TestCopyRangeMovesBytes(t *testing.T) {
	dir := t.TempDir()
	src, dst := create(t, filepath.Join(dir, "src")), create(t, filepath.Join(dir, "dst"))
	writeAt(t, src, 0, pattern(1, 3<<20))
	writeAt(t, dst, 0, pattern(2, 100))
	var steps int64
	r := reflink.Range{Offset: 1001, Length: 2<<20 + 77}
	if err := reflink.CopyRange(t.Context(), dst, 100, src, r, func(n int64) { steps += n }); err != nil {
		t.Fatal(err)
	}
	want := append(pattern(2, 100), pattern(1, 3<<20)[r.Offset:r.Offset+r.Length]...)
	if !bytes.Equal(read(t, dst), want) {
		t.Error("the range arrived changed, or elsewhere")
	}
	if steps != r.Length {
		t.Errorf("told of %d bytes, want %d", steps, r.Length)
	}
	// A source that ends early is an error, not zeros.
	r = reflink.Range{Offset: 1<<20 + 1, Length: 3 << 20}
	err := reflink.CopyRange(t.Context(), dst, 0, src, r, nil)
	if err == nil || !strings.Contains(err.Error(), "ends at byte 3145728") {
		t.Errorf("error %v of a range beyond the end of the source, want one that says where that is", err)
	}
}

func data(t *testing.T, f *os.File) (ranges []reflink.Range) {
	t.Helper()
	for r, err := range reflink.Data(t.Context(), f) {
		if err != nil {
			t.Fatal(err)
		}
		ranges = append(ranges, r)
	}
	return ranges
}

// usage is what the file occupies on the disk, as du says.
func usage(t *testing.T, f *os.File) int64 {
	t.Helper()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Blocks * 512
}
