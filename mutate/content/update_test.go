package content_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/reflink"
)

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

// TestUpdateGrown: forks that are larger than their parents are followed without reading
// what they share, also where the parent ends within a chunk.
func TestUpdateGrown(t *testing.T) {
	dir := reflinkDir(t)
	for name, size := range map[string]int64{"whole chunks": 5 * content.Chunk, "a part of one": 4*content.Chunk + 8192 + 77} {
		parent := create(t, filepath.Join(dir, name))
		truncate(t, parent, size)
		writeAt(t, parent, 0, random(20260103, int(size)))
		sums := sum(t, parent)
		for more, write := range map[int64]int64{1: -1, 4096: -1, 3 * content.Chunk: -1, 20 * content.Chunk: 11 * content.Chunk} {
			f := fork(t, parent, filepath.Join(dir, fmt.Sprint(name, more)))
			truncate(t, f, size+more)
			if write >= 0 {
				writeAt(t, f, size+write, random(uint64(more), 5000))
			}
			got, err := sums.Update(t.Context(), parent, f)
			if err != nil {
				t.Fatal(err)
			}
			if want := sum(t, f); got.Digest() != want.Digest() {
				t.Errorf("%s, %d bytes more: Update gives %s, Sum %s", name, more, got.Digest(), want.Digest())
			}
			list := marshal(t, sums)
			copy(sumIn(list, 0), bytes.Repeat([]byte{0xee}, 32)) // a sum that no bytes have
			if got, err = unmarshal(t, list).Update(t.Context(), parent, f); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(sumIn(marshal(t, got), 0), sumIn(list, 0)) {
				t.Errorf("%s, %d bytes more: Update read a chunk that is shared", name, more)
			}
		}
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
		copy(sumIn(list, c), bytes.Repeat([]byte{0xee}, 32))
	}
	got, err := unmarshal(t, list).Update(t.Context(), parent, f)
	if err != nil {
		t.Fatal(err)
	}
	want := marshal(t, sum(t, f))
	copy(sumIn(list, 1), sumIn(want, 1))
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
	for c := range 3 {
		copy(sumIn(list, c), bytes.Repeat([]byte{0xee}, 32)) // sums that no bytes have
	}
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
	for _, err := range reflink.Extents(t.Context(), create(t, filepath.Join(dir, "probe"))) {
		if err != nil {
			return reflinkDir(t)
		}
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

// TestSharedPartsAreKnown: a part of a fork counts as its parent's as long as not a byte
// of that part was written, whatever happens around it.
func TestSharedPartsAreKnown(t *testing.T) {
	dir := reflinkDir(t)
	const block, size = 4096, 3*content.Chunk + 5*4096
	parent := create(t, filepath.Join(dir, "parent"))
	truncate(t, parent, size)
	writeAt(t, parent, 0, random(7, 2*content.Chunk))
	part := reflink.Range{Offset: 10 * block, Length: content.Chunk + 3*block}
	for _, tc := range []struct {
		name string
		at   int64 // a byte that is written, none if it is below 0
		want bool
	}{
		{"nothing", -1, true},
		{"the block before", part.Offset - 1, true},
		{"the first byte", part.Offset, false},
		{"the last byte", part.Offset + part.Length - 1, false},
		{"the block behind", part.Offset + part.Length, true},
		{"a hole far behind", 3 * content.Chunk, true},
	} {
		f := fork(t, parent, filepath.Join(dir, "fork"))
		if tc.at >= 0 {
			writeAt(t, f, tc.at, []byte{1})
		}
		if got, err := content.Shares(t.Context(), parent, f, part); got != tc.want || err != nil {
			t.Errorf("%s is written: %t, %v, want %t", tc.name, got, err, tc.want)
		}
		var apart []int64
		for r, err := range content.Apart(t.Context(), parent, f) {
			if apart = append(apart, r.Offset); err != nil {
				t.Error(err)
			}
		}
		var want []int64
		if tc.at >= 0 {
			want = append(want, tc.at/content.Chunk*content.Chunk)
		}
		if !slices.Equal(apart, want) {
			t.Errorf("%s is written: apart at %d, want %d", tc.name, apart, want)
		}
		os.Remove(f.Name())
	}
	// The same bytes elsewhere are not known to be the same, nor is another file.
	copied := create(t, filepath.Join(dir, "copied"))
	writeAt(t, copied, 0, random(7, 2*content.Chunk))
	if got, err := content.Shares(t.Context(), parent, copied, part); got || err != nil {
		t.Errorf("of a copy: %t, %v", got, err)
	}
	elsewhere := create(t, filepath.Join(t.TempDir(), "elsewhere"))
	if got, err := content.Shares(t.Context(), parent, elsewhere, part); got || err != nil {
		t.Errorf("of a file of another filesystem: %t, %v", got, err)
	}
	truncate(t, elsewhere, content.Chunk+1)
	var all []reflink.Range
	for r, err := range content.Apart(t.Context(), parent, elsewhere) {
		if all = append(all, r); err != nil {
			t.Error(err)
		}
	}
	if want := []reflink.Range{{Length: content.Chunk}, {Offset: content.Chunk, Length: 1}}; !slices.Equal(all, want) {
		t.Errorf("of a file of another filesystem are apart %v, want all: %v", all, want)
	}
}
