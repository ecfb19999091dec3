package content

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
)

// TestDataUpToTheBoundIsTaken, and not a chunk more.
func TestDataUpToTheBoundIsTaken(t *testing.T) {
	f := newFile(t, nil)
	for _, c := range []struct {
		chunks int64
		taken  bool
	}{
		{0, true}, {1, true}, {4<<20 - 1, true}, {4 << 20, true}, {4<<20 + 1, false}, {1 << 43, false},
	} {
		if err := checkData(f, c.chunks); (err == nil) != c.taken || err != nil && fault.Of(err) != fault.Image {
			t.Errorf("%d chunks: error %v, want taken: %t, or an error of the image's", c.chunks, err, c.taken)
		}
	}
}

// TestHashTakesNoMoreThanTheBound: extents that differ are not counted before
// they are read.
func TestHashTakesNoMoreThanTheBound(t *testing.T) {
	f := newFile(t, make([]byte, 3*Chunk))
	for left, want := range []fault.Class{fault.Image, fault.Image, fault.Image, "", ""} {
		h := hasher{f: f, size: 3 * Chunk, taken: MaxData/Chunk - int64(left)}
		if _, err := h.hash(t.Context(), numbers(3, nil)); fault.Of(err) != want {
			t.Errorf("three chunks where %d are left: error %v of class %q, want %q", left, err, fault.Of(err), want)
		}
	}
}

// TestUpdateTakesNoMoreThanTheBound: a fork of an image that is as large as one
// may be cannot have more.
func TestUpdateTakesNoMoreThanTheBound(t *testing.T) {
	const size = 2 * MaxData
	parent, f := newFile(t, nil), newFile(t, []byte("more"))
	if err := errors.Join(os.Truncate(parent.Name(), size), os.Truncate(f.Name(), size), f.Sync()); err != nil {
		t.Fatal(err)
	}
	full := &Sums{size: size, chunks: make([]chunk, MaxData/Chunk)}
	for i := range full.chunks {
		full.chunks[i].number = int64(i) + 1
	}
	if _, err := full.Update(t.Context(), parent, f); fault.Of(err) != fault.Image {
		t.Errorf("a chunk more than the bound: %v, want an error of the image's", err)
	}
	full.chunks = full.chunks[1:]
	if _, err := full.Update(t.Context(), parent, f); err != nil {
		t.Errorf("as much as the bound: %v", err)
	}
}

// TestHashEndsWithTheFirstError: chunks that cannot be told or read are not left
// out of the list.
func TestHashEndsWithTheFirstError(t *testing.T) {
	broken := errors.New("broken")
	readable := newFile(t, make([]byte, 3*Chunk))
	unreadable, err := os.OpenFile(readable.Name(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unreadable.Close()
	for _, c := range []struct {
		name   string
		f      *os.File
		chunks int64 // of which it is told
		end    error // and then of this
		want   error
	}{
		{"the list ends with an error", readable, 2, broken, broken},
		{"the list is an error", readable, 0, broken, broken},
		{"a chunk cannot be read", unreadable, 3, nil, unix.EBADF},
		{"none of both", readable, 3, nil, nil},
	} {
		h := hasher{f: c.f, size: 3 * Chunk}
		got, err := h.hash(t.Context(), numbers(c.chunks, c.end))
		if !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
		if c.want == nil && len(got) != int(c.chunks) {
			t.Errorf("%s: %d sums, want %d", c.name, len(got), c.chunks)
		}
	}
	if _, err := Sum(t.Context(), unreadable, nil); err == nil {
		t.Error("a file that cannot be read has sums")
	}
}

// TestHashThatIsDoneIsNotInterrupted: once all chunks are read there are sums,
// though the user gives up then.
func TestHashThatIsDoneIsNotInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	todo := func(yield func(int64, error) bool) {
		yield(0, nil)
		cancel()
	}
	h := hasher{f: newFile(t, make([]byte, Chunk)), size: Chunk}
	if got, err := h.hash(ctx, todo); err != nil || len(got) != 1 {
		t.Errorf("%d sums, %v; want one", len(got), err)
	}
}

// numbers lists the first n chunks, and then the error.
func numbers(n int64, end error) iter.Seq2[int64, error] {
	return func(yield func(int64, error) bool) {
		for i := range n {
			if !yield(i, nil) {
				return
			}
		}
		if end != nil {
			yield(0, end)
		}
	}
}

// TestListIsHeldOnce: reading and writing a list take the room of it, not more,
// for it may have 160 MiB.
func TestListIsHeldOnce(t *testing.T) {
	const n = 20_000
	s := &Sums{size: n * Chunk, chunks: make([]chunk, n)}
	for i := range s.chunks {
		s.chunks[i] = chunk{number: int64(i), sum: [32]byte{1}}
	}
	var list []byte
	var err error
	if took := allocated(func() { list, err = s.MarshalBinary() }); err != nil || took > n*listed*11/10 {
		t.Errorf("writing a list of %d bytes takes %d (%v)", n*listed, took, err)
	}
	var read Sums
	if took := allocated(func() { err = read.UnmarshalBinary(list) }); err != nil || took > n*listed*11/10 {
		t.Errorf("reading a list of %d bytes takes %d (%v)", n*listed, took, err)
	}
	if !slices.Equal(read.chunks, s.chunks) {
		t.Error("other sums were read than written")
	}
}

// allocated is how much memory f takes, in bytes.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestRestOfTick: a file that was changed within the tick that lasts waits for
// its end; any other has no time to wait for.
func TestRestOfTick(t *testing.T) {
	for _, c := range []struct{ age, want time.Duration }{
		{-time.Hour, 0}, // the clock was set back meanwhile
		{-1, 0},
		{0, clockTick},
		{1, clockTick - 1},
		{clockTick / 4, clockTick * 3 / 4},
		{clockTick - 1, 1},
		{clockTick, 0},
		{clockTick + 1, 0},
		{time.Hour, 0},
	} {
		if got := restOfTick(c.age, clockTick); got != c.want {
			t.Errorf("%v after a change: %v are left, want %v", c.age, got, c.want)
		}
	}
}

// TestTick: times of whole seconds tell of changes a second later.
func TestTick(t *testing.T) {
	for ctime, want := range map[int64]time.Duration{
		1: clockTick, 1_500_000_000: clockTick, 2_000_000_000: clockTick + time.Second, 0: clockTick + time.Second,
	} {
		if got := tickOf(ctime); got != want {
			t.Errorf("time %d: tick %v, want %v", ctime, got, want)
		}
	}
}

func newFile(t *testing.T, b []byte) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
