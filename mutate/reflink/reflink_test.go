package reflink_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/reflink"
)

const block = 4096 // of the filesystems the tests use

func TestCloneSharesExtents(t *testing.T) {
	dir := reflinkDir(t)
	src := create(t, filepath.Join(dir, "src"))
	writeAt(t, src, 0, pattern(1, 3*block))
	writeAt(t, src, 1<<20, pattern(2, 5*block))
	truncate(t, src, 2<<20+17)
	before := read(t, src)
	dst := create(t, filepath.Join(dir, "dst"))
	if err := reflink.Clone(dst, src); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, dst), before) {
		t.Error("the clone has other bytes")
	}
	a, b := extents(t, src), extents(t, dst)
	if len(a) == 0 || len(a) != len(b) {
		t.Fatalf("extents: source %v, clone %v", a, b)
	}
	for i := range a {
		if a[i].Physical != b[i].Physical || a[i].Flags&b[i].Flags&reflink.ExtentShared == 0 {
			t.Errorf("extent %d is not shared: source %+v, clone %+v", i, a[i], b[i])
		}
	}
	// What is written to the clone is its own; the source does not notice.
	writeAt(t, dst, 0, pattern(3, block))
	if !bytes.Equal(read(t, src), before) {
		t.Error("writing to the clone changed its source")
	}
	if own := extents(t, dst)[0]; own.Flags&reflink.ExtentShared != 0 || own.Physical == a[0].Physical {
		t.Errorf("an overwritten block still shows the shared place: %+v", own)
	}
}

func TestCloneTakesSize(t *testing.T) {
	dir := reflinkDir(t)
	for _, c := range []struct {
		name     string
		src, old int64
	}{
		{"of an empty file", 0, 0},
		{"of whole blocks", 3 * block, 0},
		{"with an unaligned tail", 3*block + 7, 0},
		{"of less than a block", 7, 0},
		{"onto a shorter file", 3*block + 7, block},
	} {
		t.Run(c.name, func(t *testing.T) {
			sub := mkdir(t, dir)
			src, dst := create(t, filepath.Join(sub, "src")), create(t, filepath.Join(sub, "dst"))
			writeAt(t, src, 0, pattern(1, int(c.src)))
			writeAt(t, dst, 0, pattern(2, int(c.old)))
			if err := reflink.Clone(dst, src); err != nil {
				t.Fatal(err)
			}
			if got := read(t, dst); !bytes.Equal(got, pattern(1, int(c.src))) {
				t.Errorf("clone has %d bytes, source %d, or others", len(got), c.src)
			}
		})
	}
}

// TestCloneNeverCopies holds where no extent can be shared: not a byte moves.
func TestCloneNeverCopies(t *testing.T) {
	ext4 := fixtures.PlainDir(t)
	plain := func(*testing.T) string { return ext4 }
	for _, c := range []struct {
		name     string
		from, to func(*testing.T) string
		errno    error
	}{
		{"the filesystem cannot", plain, plain, unix.EOPNOTSUPP},
		{"into another filesystem", reflinkDir, plain, nil}, // which errno depends on who is asked first
		{"out of another filesystem", plain, reflinkDir, unix.EXDEV},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, to := mkdir(t, c.from(t)), mkdir(t, c.to(t))
			src := create(t, filepath.Join(from, "src"))
			writeAt(t, src, 0, pattern(1, 4*block))
			for name, old := range map[string][]byte{"empty": {}, "full": pattern(2, 2*block)} {
				dst := create(t, filepath.Join(to, name))
				writeAt(t, dst, 0, old)
				check := func(op string, err error) {
					t.Helper()
					if !errors.Is(err, reflink.ErrUnsupported) {
						t.Errorf("%s: %v, want ErrUnsupported", op, err)
					}
					if c.errno != nil && !errors.Is(err, c.errno) {
						t.Errorf("%s: %v, want it to wrap %v", op, err, c.errno)
					}
					if got := read(t, dst); !bytes.Equal(got, old) {
						t.Errorf("%s touched its destination: %d bytes, were %d", op, len(got), len(old))
					}
				}
				check("Clone", reflink.Clone(dst, src))
				check("CloneRange", reflink.CloneRange(dst, 0, src, 0, block))
			}
			dst := filepath.Join(to, "new")
			if err := reflink.CloneFile(dst, src.Name(), 0o600); !errors.Is(err, reflink.ErrUnsupported) {
				t.Errorf("CloneFile: %v, want ErrUnsupported", err)
			}
			if _, err := os.Lstat(dst); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("CloneFile failed and left its destination: %v", err)
			}
		})
	}
}

func TestCloneFile(t *testing.T) {
	dir := reflinkDir(t)
	src := create(t, filepath.Join(dir, "src"))
	writeAt(t, src, 0, pattern(1, 2*block+5))
	dst := filepath.Join(dir, "dst")
	if err := reflink.CloneFile(dst, src.Name(), 0o600); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(dst)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode() != 0o600 {
		t.Errorf("mode %v, want 0600", fi.Mode())
	}
	if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, pattern(1, 2*block+5)) {
		t.Errorf("the clone has other bytes (%v)", err)
	}
	// A file that was there is nobody's to overwrite, nor to remove.
	other := create(t, filepath.Join(dir, "other"))
	writeAt(t, other, 0, pattern(9, 100))
	if err := reflink.CloneFile(other.Name(), src.Name(), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("clone onto a file: %v, want ErrExist", err)
	}
	if got, err := os.ReadFile(other.Name()); err != nil || !bytes.Equal(got, pattern(9, 100)) {
		t.Errorf("clone onto a file changed it (%v)", err)
	}
	none := filepath.Join(dir, "none")
	if err := reflink.CloneFile(none, filepath.Join(dir, "missing"), 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("clone of nothing: %v, want ErrNotExist", err)
	}
	if _, err := os.Lstat(none); err == nil {
		t.Error("clone of nothing left a file")
	}
}

func TestCloneRange(t *testing.T) {
	dir := reflinkDir(t)
	src, dst := create(t, filepath.Join(dir, "src")), create(t, filepath.Join(dir, "dst"))
	from := pattern(1, 4*block+9)
	writeAt(t, src, 0, from)
	writeAt(t, dst, 0, pattern(2, 7*block))
	if err := reflink.CloneRange(dst, 2*block, src, block, 2*block); err != nil {
		t.Fatal(err)
	}
	if err := reflink.CloneRange(dst, 6*block, src, 3*block, block+9); err != nil {
		t.Errorf("a length that ends at the end of both: %v", err)
	}
	want := append(pattern(2, 6*block), from[3*block:]...)
	copy(want[2*block:], from[block:3*block])
	if !bytes.Equal(read(t, dst), want) {
		t.Error("other bytes than the two ranges changed, or not those")
	}
	var shared int64
	for _, e := range extents(t, dst) {
		if e.Flags&reflink.ExtentShared != 0 {
			shared += e.Length
		}
	}
	if shared != 4*block {
		t.Errorf("%d bytes are shared, want %d", shared, 4*block)
	}
	if err := reflink.CloneRange(dst, 1, src, 0, block); !errors.Is(err, reflink.ErrUnsupported) || !errors.Is(err, unix.EINVAL) {
		t.Errorf("unaligned: %v, want ErrUnsupported and EINVAL", err)
	}
}

// TestCloneRangeThatCannotBeShared is refused on every filesystem; of nothing,
// nothing is cloned.
func TestCloneRangeThatCannotBeShared(t *testing.T) {
	dir := t.TempDir()
	src, dst := create(t, filepath.Join(dir, "src")), create(t, filepath.Join(dir, "dst"))
	writeAt(t, src, 0, pattern(1, 2*block))
	for _, length := range []int64{1, block} {
		if err := reflink.CloneRange(dst, 1, src, 0, length); !errors.Is(err, reflink.ErrUnsupported) {
			t.Errorf("%d bytes to byte 1: error %v, want ErrUnsupported", length, err)
		}
	}
	if err := reflink.CloneRange(dst, 1, src, 0, 0); err != nil {
		t.Errorf("nothing to byte 1: %v", err)
	}
	if got := read(t, dst); len(got) != 0 {
		t.Errorf("%d bytes were cloned", len(got))
	}
}

// TestExtentsEndWhenNoMoreAreWanted, though there are more.
func TestExtentsEndWhenNoMoreAreWanted(t *testing.T) {
	f := create(t, filepath.Join(mappedDir(t), "f"))
	for i := range int64(3) {
		writeAt(t, f, 2*i*block, pattern(1, block))
	}
	n := 0
	for _, err := range reflink.Extents(t.Context(), f) {
		if n++; err != nil || n == 2 {
			break
		}
	}
	if n != 2 {
		t.Errorf("%d extents, want to have seen two", n)
	}
}

// TestExtentsAreWhereTheDataIs: of each run of data its place in the file and on
// the disk, its length, and what is odd about it.
func TestExtentsAreWhereTheDataIs(t *testing.T) {
	const unwritten = 0x800 // FIEMAP_EXTENT_UNWRITTEN: room that reads as zeros
	f := create(t, filepath.Join(mappedDir(t), "f"))
	truncate(t, f, 40*block)
	writeAt(t, f, 3*block, pattern(1, 2*block))
	if err := unix.Fallocate(int(f.Fd()), 0, 16*block, 4*block); err != nil {
		t.Fatal(err)
	}
	writeAt(t, f, 30*block, pattern(2, block))
	list := extents(t, f)
	for i, want := range []reflink.Extent{
		{Logical: 3 * block, Length: 2 * block}, {Logical: 16 * block, Length: 4 * block, Flags: unwritten},
		{Logical: 30 * block, Length: block},
	} {
		if len(list) != 3 {
			t.Fatalf("extents %+v, want three", list)
		}
		got := list[i]
		if got.Logical != want.Logical || got.Length != want.Length {
			t.Errorf("extent %d is %+v, want %+v", i, got, want)
		}
		if got.Physical <= 0 || i > 0 && got.Physical == list[i-1].Physical {
			t.Errorf("extent %d is at byte %d of the disk", i, got.Physical)
		}
		const odd = unwritten | reflink.ExtentUnknown | reflink.ExtentDelalloc | reflink.ExtentEncoded |
			reflink.ExtentInline | reflink.ExtentShared
		if got.Flags&odd != want.Flags { // as it was synced, the place of each is known
			t.Errorf("extent %d has flags %#x, want %#x of them", i, got.Flags, want.Flags)
		}
	}
	pipe, _, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if list, err := listExtents(t, pipe); err == nil {
		t.Errorf("a pipe has extents: %v", list)
	}
}

// TestExtentsOfAPart are cut where they reach beyond it, and are those of the whole else.
func TestExtentsOfAPart(t *testing.T) {
	f := create(t, filepath.Join(mappedDir(t), "f"))
	truncate(t, f, 40*block)
	writeAt(t, f, 2*block, pattern(1, 6*block))
	writeAt(t, f, 20*block, pattern(2, 4*block))
	whole := extents(t, f)
	if len(whole) != 2 {
		t.Fatalf("extents %+v, want two", whole)
	}
	for _, tc := range []struct {
		from, to int64
		want     [][2]int64 // where each begins and ends
	}{
		{0, 40 * block, [][2]int64{{2 * block, 8 * block}, {20 * block, 24 * block}}},
		{3 * block, 21 * block, [][2]int64{{3 * block, 8 * block}, {20 * block, 21 * block}}},
		{3*block + 7, 3*block + 9, [][2]int64{{3*block + 7, 3*block + 9}}},
		{8 * block, 20 * block, nil},
		{5 * block, 5 * block, nil},
	} {
		n := 0
		for e, err := range reflink.ExtentsIn(t.Context(), f, reflink.Range{Offset: tc.from, Length: tc.to - tc.from}) {
			if err != nil || n == len(tc.want) {
				t.Fatalf("%d to %d: extent %+v, %v", tc.from, tc.to, e, err)
			}
			of := whole[0]
			if e.Logical >= whole[1].Logical {
				of = whole[1]
			}
			if e.Logical != tc.want[n][0] || e.Length != tc.want[n][1]-tc.want[n][0] ||
				e.Physical-of.Physical != e.Logical-of.Logical {
				t.Errorf("%d to %d: extent %+v, want bytes %v of %+v", tc.from, tc.to, e, tc.want[n], of)
			}
			n++
		}
		if n != len(tc.want) {
			t.Errorf("%d to %d: %d extents, want %d", tc.from, tc.to, n, len(tc.want))
		}
	}
}

// mappedDir is a directory on a filesystem that tells extents, which all but
// tmpfs do.
func mappedDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := listExtents(t, create(t, filepath.Join(dir, "probe"))); errors.Is(err, unix.EOPNOTSUPP) {
		return reflinkDir(t)
	}
	return dir
}

// TestExtentsBeyondOneCall has more extents than one FIEMAP call gives.
func TestExtentsBeyondOneCall(t *testing.T) {
	dir := mappedDir(t)
	f := create(t, filepath.Join(dir, "f"))
	const n = 2100
	truncate(t, f, 2*n*block) // first, or XFS allocates ahead
	for i := range int64(n) {
		writeAt(t, f, 2*i*block, []byte{1})
	}
	list := extents(t, f)
	if len(list) != n {
		t.Fatalf("%d extents, want %d", len(list), n)
	}
	for i, e := range list {
		if e.Logical != 2*int64(i)*block || e.Length != block {
			t.Fatalf("extent %d is %+v", i, e)
		}
	}
	if list := extents(t, create(t, filepath.Join(dir, "empty"))); len(list) != 0 {
		t.Errorf("an empty file has extents: %v", list)
	}
}

func TestProbe(t *testing.T) {
	if err := reflink.Probe(reflinkDir(t)); err != nil {
		t.Errorf("XFS: %v, want nil", err)
	}
	ext4 := fixtures.PlainDir(t)
	if err := reflink.Probe(ext4); !errors.Is(err, reflink.ErrUnsupported) {
		t.Errorf("ext4: %v, want ErrUnsupported", err)
	}
	if left, err := os.ReadDir(ext4); err != nil || len(left) != 0 {
		t.Errorf("the probe left %v (%v)", left, err)
	}
	// What says nothing about reflinks must not be taken for a no: a pool would be made.
	inconclusive := func(name, dir string, want error) {
		t.Helper()
		if err := reflink.Probe(dir); !errors.Is(err, want) || errors.Is(err, reflink.ErrUnsupported) {
			t.Errorf("%s: %v, want %v and not ErrUnsupported", name, err, want)
		}
		if left, err := os.ReadDir(dir); err == nil && len(left) != 0 {
			t.Errorf("%s: the probe left %v", name, left)
		}
	}
	inconclusive("missing directory", filepath.Join(ext4, "none"), fs.ErrNotExist)
	fixtures.Require(t, fixtures.Root)
	inconclusive("full filesystem", tmpfs(t, 0, "size=4k"), unix.ENOSPC)
	inconclusive("read-only filesystem", tmpfs(t, unix.MS_RDONLY, ""), unix.EROFS)
}

func tmpfs(t *testing.T, flags uintptr, data string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, data); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func reflinkDir(t *testing.T) string {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Reflink)
	return fixtures.ReflinkDir(t)
}

func mkdir(t *testing.T, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "")
	if err != nil {
		t.Fatal(err)
	}
	return dir
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

func read(t *testing.T, f *os.File) []byte {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func extents(t *testing.T, f *os.File) []reflink.Extent {
	t.Helper()
	list, err := listExtents(t, f)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func listExtents(t *testing.T, f *os.File) (list []reflink.Extent, err error) {
	t.Helper()
	for e, err := range reflink.Extents(t.Context(), f) {
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

// pattern is n bytes, none of them zero.
func pattern(seed byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 1 + (seed+byte(i)+byte(i>>8))%255
	}
	return b
}
