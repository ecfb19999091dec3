package content_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/reflink"
)

// reference is the list as the package comment defines it, over bytes.
func reference(b []byte) []byte {
	list := binary.BigEndian.AppendUint64([]byte("imgmut content v2\n"), uint64(len(b)))
	for n := uint64(0); len(b) > 0; n++ {
		chunk := b[:min(content.Chunk, len(b))]
		if len(bytes.Trim(chunk, "\x00")) > 0 {
			sum := sha256.Sum256(chunk)
			list = append(binary.BigEndian.AppendUint64(list, n), sum[:]...)
		}
		b = b[len(chunk):]
	}
	return list
}

func TestDigestIsAsDocumented(t *testing.T) {
	dir := t.TempDir()
	for i, size := range []int{0, 1, content.Chunk - 1, content.Chunk, content.Chunk + 1, 5*content.Chunk + 4097} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			b := random(uint64(i), size)
			if size > 3*content.Chunk { // one chunk is zeros, and one all but its last byte
				clear(b[content.Chunk : 3*content.Chunk-1])
			}
			f := create(t, filepath.Join(dir, fmt.Sprint(i)))
			writeAt(t, f, 0, b)
			sums, want := sum(t, f), reference(b)
			if got := marshal(t, sums); !bytes.Equal(got, want) {
				t.Errorf("the list has %d bytes, want %d, or others", len(got), len(want))
			}
			if got, want := sums.Digest(), fmt.Sprintf("%x", sha256.Sum256(want)); got != want {
				t.Errorf("digest %s, want %s", got, want)
			}
		})
	}
	// Stores are named by it: it must never change.
	const golden = "34f1f7cde765856c828d166bd75fb2a1a8725c1f8ea66331242aa3e1bc7accd5"
	f := create(t, filepath.Join(dir, "golden"))
	writeAt(t, f, 0, bytes.Repeat([]byte("imgmut"), 300000))
	writeAt(t, f, 4*content.Chunk, []byte("imgmut"))
	if got := digest(t, f); got != golden {
		t.Errorf("digest %s, want %s", got, golden)
	}
}

func TestDigestIsOfBytesNotHoles(t *testing.T) {
	dir := t.TempDir()
	for i, size := range []int64{4096, content.Chunk, 3*content.Chunk + 100} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			holes := create(t, filepath.Join(dir, fmt.Sprintf("holes-%d", i)))
			truncate(t, holes, size)
			zeros := create(t, filepath.Join(dir, fmt.Sprintf("zeros-%d", i)))
			writeAt(t, zeros, 0, make([]byte, size))
			unwritten := create(t, filepath.Join(dir, fmt.Sprintf("unwritten-%d", i)))
			if err := unix.Fallocate(int(unwritten.Fd()), 0, 0, size); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("%x", sha256.Sum256(reference(make([]byte, size))))
			for _, f := range []*os.File{holes, zeros, unwritten} {
				if got := digest(t, f); got != want {
					t.Errorf("%s: digest %s, want %s", filepath.Base(f.Name()), got, want)
				}
			}
		})
	}
}

func TestDigestChangesWithAnyByteAndSize(t *testing.T) {
	const size = 2*content.Chunk + 5000
	f := create(t, filepath.Join(t.TempDir(), "f"))
	b := random(1, size/2) // the rest is a hole
	writeAt(t, f, 0, b)
	truncate(t, f, size)
	seen := map[string]string{digest(t, f): "nothing"}
	check := func(what string) {
		t.Helper()
		d := digest(t, f)
		if other, ok := seen[d]; ok {
			t.Errorf("the same digest after changing %s as after %s", what, other)
		}
		seen[d] = what
	}
	for _, at := range []int64{0, 1, 4095, 4096, content.Chunk - 1, content.Chunk, size / 2, 2 * content.Chunk, size - 1} {
		old := make([]byte, 1)
		if _, err := f.ReadAt(old, at); err != nil {
			t.Fatal(err)
		}
		writeAt(t, f, at, []byte{old[0] ^ 1})
		check(fmt.Sprintf("byte %d", at))
		writeAt(t, f, at, old)
	}
	for _, s := range []int64{size - 1, size + 1, 2 * content.Chunk, 3 * content.Chunk, 3*content.Chunk + 1} {
		truncate(t, f, s)
		truncate(t, f, max(s, size))
		truncate(t, f, s)
		check(fmt.Sprintf("the size to %d", s))
	}
}

func TestSumStopsWhenCancelled(t *testing.T) {
	f := create(t, filepath.Join(t.TempDir(), "f"))
	writeAt(t, f, 0, random(1, 32*content.Chunk))
	cause := errors.New("the user pressed ^C")
	ctx, cancel := context.WithCancelCause(t.Context())
	var last atomic.Int64
	_, err := content.Sum(ctx, f, func(done, _ int64) { last.Store(done); cancel(cause) })
	if !errors.Is(err, cause) {
		t.Errorf("Sum: %v, want the cause", err)
	}
	if last.Load() >= 32*content.Chunk {
		t.Error("read everything all the same")
	}
	sums := sum(t, f)
	if _, err := sums.Update(ctx, create(t, filepath.Join(t.TempDir(), "empty")), f); !errors.Is(err, cause) {
		t.Errorf("Update: %v, want the cause", err)
	}
}

func TestSumProgressEndsAtTotal(t *testing.T) {
	f := create(t, filepath.Join(t.TempDir(), "f"))
	writeAt(t, f, 0, random(1, 2*content.Chunk))
	truncate(t, f, 64*content.Chunk)
	for i := range int64(3) { // three pieces of one chunk are one chunk to read
		writeAt(t, f, 40*content.Chunk+i*256<<10, random(1, 4096))
	}
	var most atomic.Int64
	_, err := content.Sum(t.Context(), f, func(done, total int64) {
		if total != 3*content.Chunk { // holes are no work
			t.Errorf("total %d, want %d", total, 3*content.Chunk)
		}
		for old := most.Load(); done > old && !most.CompareAndSwap(old, done); old = most.Load() {
		}
	})
	if err != nil || most.Load() != 3*content.Chunk {
		t.Errorf("ended at %d, %v", most.Load(), err)
	}
}

func reflinkDir(t *testing.T) string {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Reflink)
	return fixtures.ReflinkDir(t)
}

func create(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func fork(t *testing.T, parent *os.File, path string) *os.File {
	t.Helper()
	f := create(t, path)
	if err := reflink.Clone(f, parent); err != nil {
		t.Fatal(err)
	}
	return f
}

func writeAt(t *testing.T, f *os.File, off int64, b []byte) {
	t.Helper()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, f *os.File, size int64) {
	t.Helper()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

func sum(t *testing.T, f *os.File) *content.Sums {
	t.Helper()
	s, err := content.Sum(t.Context(), f, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func digest(t *testing.T, f *os.File) string {
	t.Helper()
	return sum(t, f).Digest()
}

func marshal(t *testing.T, s *content.Sums) []byte {
	t.Helper()
	b, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unmarshal(t *testing.T, b []byte) *content.Sums {
	t.Helper()
	s := new(content.Sums)
	if err := s.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	return s
}

func random(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b) // it never fails
	return b
}

// sumIn is the sum that is the i-th in a list.
func sumIn(list []byte, i int) []byte {
	at := len("imgmut content v2\n") + 8 + 40*i + 8
	return list[at : at+32]
}
