package content_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/reflink"
)

// reference is the digest as the package comment defines it, over bytes.
func reference(b []byte) string {
	sum := sha256.New()
	sum.Write(binary.BigEndian.AppendUint64([]byte("imgmut content v1\n"), uint64(len(b))))
	for len(b) > 0 {
		chunk := sha256.Sum256(b[:min(content.Chunk, len(b))])
		sum.Write(chunk[:])
		b = b[min(content.Chunk, len(b)):]
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func TestDigestIsAsDocumented(t *testing.T) {
	dir := t.TempDir()
	for i, size := range []int{0, 1, content.Chunk - 1, content.Chunk, content.Chunk + 1, 5*content.Chunk + 4097} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			b := random(uint64(i), size)
			f := create(t, filepath.Join(dir, fmt.Sprint(i)))
			writeAt(t, f, 0, b)
			if got, want := digest(t, f), reference(b); got != want {
				t.Errorf("digest %s, want %s", got, want)
			}
		})
	}
	// Stores are named by it: it must never change.
	const golden = "e939a53ebd00d3abea591ce48aba073550ef2ae6a3638593e0e3b881c25471b8"
	f := create(t, filepath.Join(dir, "golden"))
	writeAt(t, f, 0, bytes.Repeat([]byte("imgmut"), 300000))
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
			want := reference(make([]byte, size))
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

// TestUpdateEqualsSum edits forks of forks at random and follows them by Update alone.
func TestUpdateEqualsSum(t *testing.T) {
	dir := reflinkDir(t)
	const seed, size = 20260102, 12*content.Chunk + 777
	rnd := rand.New(rand.NewPCG(seed, 0))
	parent := create(t, filepath.Join(dir, "0"))
	truncate(t, parent, size)
	writeAt(t, parent, 0, random(seed, 5*content.Chunk))
	sums := sum(t, parent)
	for i := range 60 {
		f := fork(t, parent, filepath.Join(dir, fmt.Sprint(i+1)))
		var edits []string
		for range rnd.IntN(8) {
			edits = append(edits, edit(t, rnd, f, size))
		}
		got, err := sums.Update(t.Context(), parent, f)
		if err != nil {
			t.Fatal(err)
		}
		if want := sum(t, f); got.Digest() != want.Digest() {
			t.Fatalf("seed %d, fork %d, after %v: Update gives %s, Sum %s", seed, i, edits, got.Digest(), want.Digest())
		}
		os.Remove(parent.Name())
		parent, sums = f, got
	}
}

// edit does one of the things that change a file, and names it.
func edit(t *testing.T, rnd *rand.Rand, f *os.File, size int64) string {
	t.Helper()
	off := rnd.Int64N(size)
	n := rnd.Int64N(min(size-off, 3*content.Chunk)) + 1
	if rnd.IntN(2) == 0 {
		n = min(n, 1+rnd.Int64N(9000))
	}
	fallocate := func(mode uint32) {
		t.Helper()
		if err := unix.Fallocate(int(f.Fd()), mode|unix.FALLOC_FL_KEEP_SIZE, off, n); err != nil {
			t.Fatal(err)
		}
	}
	name := ""
	switch rnd.IntN(7) {
	case 0:
		name = "punch"
		fallocate(unix.FALLOC_FL_PUNCH_HOLE)
	case 1:
		name = "zero range"
		fallocate(unix.FALLOC_FL_ZERO_RANGE)
	case 2:
		name = "preallocate"
		fallocate(0)
	case 3: // one block of the file becomes a second place of another
		name = "clone range"
		const block = 4096
		off, n = off/block*block, 16*block
		to := rnd.Int64N(size/block-32) * block
		if off+n > size/block*block || off < to+n && to < off+n {
			break
		}
		if err := reflink.CloneRange(f, to, f, off, n); err != nil {
			t.Fatal(err)
		}
	case 4:
		name = "write zeros"
		writeAt(t, f, off, make([]byte, n))
	case 5:
		name = "cut and grow"
		truncate(t, f, off)
		truncate(t, f, size)
	default:
		name = "write"
		writeAt(t, f, off, random(rnd.Uint64(), int(n)))
	}
	return fmt.Sprintf("%s %d+%d", name, off, n)
}

// TestUpdateOfCompressedData: both files map one compressed extent at one
// address, but not the same part of it.
func TestUpdateOfCompressedData(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	dir := t.TempDir()
	disk, mnt := create(t, filepath.Join(dir, "btrfs")), filepath.Join(dir, "mnt")
	truncate(t, disk, 256<<20)
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"mkfs.btrfs", "-q", disk.Name()}, {"mount", "-o", "loop,compress-force=zlib", disk.Name(), mnt},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Error(err)
		}
	})
	const half = 64 << 10
	src := create(t, filepath.Join(mnt, "src"))
	defer src.Close() // before the unmount
	writeAt(t, src, 0, append(bytes.Repeat([]byte("a"), half), bytes.Repeat([]byte("b"), half)...))
	if err := src.Sync(); err != nil {
		t.Fatal(err)
	}
	var files [2]*os.File
	for i := range files {
		files[i] = create(t, filepath.Join(mnt, fmt.Sprint(i)))
		defer files[i].Close()
		if err := reflink.CloneRange(files[i], 0, src, int64(i)*half, half); err != nil {
			t.Fatal(err)
		}
	}
	got, err := sum(t, files[0]).Update(t.Context(), files[0], files[1])
	if err != nil {
		t.Fatal(err)
	}
	if want := digest(t, files[1]); got.Digest() != want {
		t.Errorf("Update gives %s, Sum %s", got.Digest(), want)
	}
}

// TestUpdateReadsOnlyWhatDiffers gives Update false sums of the parent: those
// of chunks that are shared must come through untouched.
func TestUpdateReadsOnlyWhatDiffers(t *testing.T) {
	dir := reflinkDir(t)
	parent := create(t, filepath.Join(dir, "parent"))
	writeAt(t, parent, 0, random(1, 4*content.Chunk))
	f := fork(t, parent, filepath.Join(dir, "fork"))
	writeAt(t, f, content.Chunk+5, []byte("changed"))

	list := marshal(t, sum(t, parent))
	for c := range 4 {
		copy(list[8+32*c:], bytes.Repeat([]byte{0xee}, 32))
	}
	got, err := unmarshal(t, list).Update(t.Context(), parent, f)
	if err != nil {
		t.Fatal(err)
	}
	want := marshal(t, sum(t, f))
	copy(list[8+32:], want[8+32:8+64])
	if !bytes.Equal(marshal(t, got), list) {
		t.Error("Update read a chunk that is shared, or not the one that differs")
	}
}

func TestUpdateWhereNothingIsShared(t *testing.T) {
	plain := func(t *testing.T) string { t.Helper(); return t.TempDir() }
	for _, c := range []struct {
		name         string
		parent, fork func(*testing.T) string
	}{
		{"no reflinks", plain, plain},
		{"into another filesystem", reflinkDir, plain},
		{"out of another filesystem", plain, reflinkDir},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent := create(t, filepath.Join(c.parent(t), "parent"))
			writeAt(t, parent, 0, random(1, 3*content.Chunk+9))
			f := create(t, filepath.Join(c.fork(t), "fork"))
			writeAt(t, f, 0, random(2, 3*content.Chunk+9))
			got, err := sum(t, parent).Update(t.Context(), parent, f)
			if err != nil {
				t.Fatal(err)
			}
			if want := digest(t, f); got.Digest() != want {
				t.Errorf("Update gives %s, Sum %s", got.Digest(), want)
			}
		})
	}
}

// TestUpdateBetweenFilesystems: the first files of two new filesystems lie at
// one address, each in its own.
func TestUpdateBetweenFilesystems(t *testing.T) {
	parent := create(t, filepath.Join(reflinkDir(t), "f"))
	f := create(t, filepath.Join(reflinkDir(t), "f"))
	writeAt(t, parent, 0, random(1, 3*content.Chunk))
	writeAt(t, f, 0, random(2, 3*content.Chunk))
	got, err := sum(t, parent).Update(t.Context(), parent, f)
	if err != nil {
		t.Fatal(err)
	}
	if want := digest(t, f); got.Digest() != want {
		t.Errorf("Update gives %s, Sum %s", got.Digest(), want)
	}
}

// TestUpdateOfItself: a file shares all of its extents with itself, so nothing
// of it is read, unless it grew since.
func TestUpdateOfItself(t *testing.T) {
	f := create(t, filepath.Join(mappedDir(t), "f"))
	writeAt(t, f, 0, random(1, 3*content.Chunk))
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	list := marshal(t, sum(t, f))
	copy(list[8:], bytes.Repeat([]byte{0xee}, 3*32)) // sums that no bytes have
	got, err := unmarshal(t, list).Update(t.Context(), f, f)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(marshal(t, got), list) {
		t.Error("Update read a chunk that is shared")
	}
	truncate(t, f, 3*content.Chunk+1)
	if got, err = unmarshal(t, list).Update(t.Context(), f, f); err != nil {
		t.Fatal(err)
	}
	if want := digest(t, f); got.Digest() != want {
		t.Errorf("after it grew, Update gives %s, Sum %s", got.Digest(), want)
	}
}

// mappedDir is a directory on a filesystem that tells extents, which all but
// tmpfs do.
func mappedDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := reflink.Extents(create(t, filepath.Join(dir, "probe"))); err != nil {
		return reflinkDir(t)
	}
	return dir
}

func TestUpdateOfAnotherSize(t *testing.T) {
	dir := reflinkDir(t)
	parent := create(t, filepath.Join(dir, "parent"))
	writeAt(t, parent, 0, random(1, 3*content.Chunk))
	sums := sum(t, parent)
	for _, size := range []int64{0, 100, 2 * content.Chunk, 3*content.Chunk - 1, 3*content.Chunk + 1, 9 * content.Chunk} {
		f := fork(t, parent, filepath.Join(dir, fmt.Sprint(size)))
		truncate(t, f, size)
		got, err := sums.Update(t.Context(), parent, f)
		if err != nil {
			t.Fatal(err)
		}
		if want := digest(t, f); got.Digest() != want {
			t.Errorf("size %d: Update gives %s, Sum %s", size, got.Digest(), want)
		}
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

func TestMarshalRoundTrip(t *testing.T) {
	dir := t.TempDir()
	for i, size := range []int{0, 1, content.Chunk, 3*content.Chunk + 1} {
		f := create(t, filepath.Join(dir, fmt.Sprint(i)))
		writeAt(t, f, 0, random(uint64(i), size))
		sums := sum(t, f)
		if got, want := unmarshal(t, marshal(t, sums)).Digest(), sums.Digest(); got != want {
			t.Errorf("%d bytes: digest %s after the round trip, was %s", size, got, want)
		}
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	list := func(size uint64, sums int) []byte {
		return append(binary.BigEndian.AppendUint64(nil, size), make([]byte, 32*sums)...)
	}
	for _, c := range []struct {
		name string
		b    []byte
	}{
		{"nothing", nil},
		{"half a size", make([]byte, 7)},
		{"half a sum", list(1, 1)[:39]},
		{"a byte too many", append(list(1, 1), 0)},
		{"a sum too few", list(content.Chunk+1, 1)},
		{"a sum too many", list(content.Chunk, 2)},
		{"a sum of nothing", list(0, 1)},
		{"a size below zero", list(1<<64-1, 0)},
		{"a size far below zero", list(1<<63, 0)},
		{"a size that overflows", list(1<<63-1, 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := new(content.Sums).UnmarshalBinary(c.b); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestUnmarshalSaysWhatIsWrong(t *testing.T) {
	list := append(binary.BigEndian.AppendUint64(nil, 5*content.Chunk), make([]byte, 3*32)...)
	err := new(content.Sums).UnmarshalBinary(list)
	if want := fmt.Sprintf("3 sums do not cover %d bytes", 5*content.Chunk); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want one that says %q", err, want)
	}
}

// FuzzUnmarshal: what is accepted marshals to the same bytes, and can be used.
func FuzzUnmarshal(f *testing.F) {
	for _, n := range []int{0, 1, 3} {
		f.Add(append(binary.BigEndian.AppendUint64(nil, uint64(n)*content.Chunk), make([]byte, 32*n)...))
	}
	f.Add(binary.BigEndian.AppendUint64(nil, 1<<64-1))
	f.Add(binary.BigEndian.AppendUint64(nil, 1<<63-1))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s content.Sums
		if s.UnmarshalBinary(b) != nil {
			return
		}
		if got := marshal(t, &s); !bytes.Equal(got, b) {
			t.Errorf("%x marshals to %x", b, got)
		}
		if size := int64(binary.BigEndian.Uint64(b)); size < 0 {
			t.Errorf("accepted a size of %d", size)
		}
		if d := s.Digest(); len(d) != 64 {
			t.Errorf("digest %q", d)
		}
	})
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
