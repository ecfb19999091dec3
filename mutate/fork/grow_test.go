package fork

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
)

// tableScripts partition a disk so that the last is the one to grow, and which that is.
var tableScripts = map[string]struct {
	script string
	slot   int
}{
	"gpt":                {"label: gpt\nsize=1MiB\nsize=320MiB\n", 2},
	"gpt between blocks": {"label: gpt\nstart=2049, size=8MiB\nstart=20481, size=320MiB\n", 2},
	"dos":                {"label: dos\nsize=1MiB\nsize=320MiB\n", 2},
	"dos, logical":       {"label: dos\nsize=1MiB\ntype=5\nsize=320MiB\n", 5},
	"bare":               {"", 0},
}

// singleDisk makes a disk of 360 MiB with one filesystem in the partition that is to grow.
func singleDisk(t *testing.T, dir, table, mkfs string) (string, disk.Volume) {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	img, tree, script := filepath.Join(dir, "disk.raw"), t.TempDir(), tableScripts[table]
	os.Remove(img)
	writeFile(t, img, "")
	if err := os.Truncate(img, 360<<20); err != nil {
		t.Fatal(err)
	}
	v := disk.Volume{Size: 360 << 20}
	if script.script != "" {
		program(t, script.script, "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", img)
		v, _ = layoutOf(t, img).Slot(script.slot)
	}
	writeFile(t, filepath.Join(tree, "kept"), strings.Repeat("kept\n", 40000))
	file, words := filepath.Join(dir, "volume"), strings.Fields(strings.ReplaceAll(mkfs, "TREE", tree))
	writeFile(t, file, "")
	if err := os.Truncate(file, v.Size); err != nil {
		t.Fatal(err)
	}
	program(t, "", words[0], append(words[1:], file)...)
	program(t, "", "dd", "if="+file, "of="+img, "bs=1M", "conv=notrunc,sparse", "oflag=seek_bytes", fmt.Sprint("seek=", v.Offset))
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	v, _ = layoutOf(t, img).Slot(script.slot)
	return img, v
}

// sizeTold is how large a filesystem is, by the word of its authors' program.
func sizeTold(t *testing.T, file, fs string) int64 {
	t.Helper()
	number := func(out, pattern string) int64 {
		m := regexp.MustCompile(pattern).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("no %s in\n%s", pattern, out)
		}
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	switch fs {
	case "xfs":
		out := program(t, "", "xfs_db", "-r", "-f", "-c", "sb 0", "-c", "p blocksize dblocks", file)
		return number(out, `blocksize = (\d+)`) * number(out, `dblocks = (\d+)`)
	case "btrfs":
		return number(program(t, "", "btrfs", "inspect-internal", "dump-super", file), `\ntotal_bytes\s+(\d+)`)
	}
	out := program(t, "", "dumpe2fs", "-h", file)
	return number(out, `Block size:\s+(\d+)`) * number(out, `Block count:\s+(\d+)`)
}

var mkfs = map[string]string{
	"ext2": "mke2fs -q -t ext2 -d TREE", "ext3": "mke2fs -q -t ext3 -d TREE", "ext4": "mke2fs -q -t ext4 -d TREE",
	"ext4 of small blocks, no room kept": "mke2fs -q -t ext4 -b 1024 -O ^resize_inode,^64bit,^metadata_csum -d TREE",
	"ext4 of meta groups":                "mke2fs -q -t ext4 -O meta_bg,^resize_inode -d TREE",
	"xfs":                                "mkfs.xfs -q", "btrfs": "mkfs.btrfs -q -r TREE",
}

// TestGrow: each filesystem in each table fills the partition, is whole, and holds what it
// held, by the programs of its authors.
func TestGrow(t *testing.T) {
	dir := fixtures.ReflinkDir(t)
	grown := func(t *testing.T, table, make string) {
		img, was := singleDisk(t, dir, table, make)
		f, err := os.OpenFile(img, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		l := layoutOf(t, img)
		for n, v := range l.Volumes {
			if v.Slot == was.Slot {
				l.Volumes[n].Role = disk.Root
			}
		}
		g, want, err := Room{Size: 400 << 20, More: true}.Plan(f, l)
		if err != nil {
			t.Fatal(err)
		}
		if g != (Growth{760 << 20, was.Slot}) {
			t.Errorf("the growth is %+v", g)
		}
		if err := g.Grow(t.Context(), f, want, func(text string) { t.Log(text) }); err != nil {
			t.Fatal(err)
		}
		is := layoutOf(t, img)
		for n, v := range is.Volumes {
			planned := want.Volumes[n]
			planned.Role = ""
			if v != planned {
				t.Errorf("there is %+v, and was to be %+v", v, planned)
			}
		}
		now, _ := is.Slot(was.Slot)
		if end := now.Offset + now.Size; end < 758<<20 || now.Offset != was.Offset || now.UUID != was.UUID {
			t.Errorf("%+v became %+v", was, now)
		}
		checkVolume(t, img, dir, now)
		file := carved(t, img, dir, now)
		defer os.Remove(file)
		// ext4 leaves out a last group of blocks that has hardly room for its own tables.
		if size := sizeTold(t, file, now.FS); size > now.Size || size < now.Size-3<<20 {
			t.Errorf("the filesystem has %d bytes of a partition of %d", size, now.Size)
		}
		if strings.HasPrefix(now.FS, "ext") {
			if out := program(t, "", "debugfs", "-R", "cat /kept", file); !strings.Contains(out, strings.Repeat("kept\n", 40000)) {
				t.Errorf("the file has %d bytes, and other ones", len(out))
			}
		}
	}
	for name, make := range mkfs {
		t.Run(name, func(t *testing.T) { grown(t, "gpt", make) })
	}
	for table, fs := range map[string]string{"gpt between blocks": "ext4", "dos": "xfs", "dos, logical": "btrfs", "bare": "ext4"} {
		t.Run(fs+" in "+table, func(t *testing.T) { grown(t, table, mkfs[fs]) })
	}
}

// TestGrowTooFar: what a filesystem cannot become is told as its fault, with its own
// program's word.
func TestGrowTooFar(t *testing.T) {
	dir := fixtures.ReflinkDir(t)
	img, was := singleDisk(t, dir, "gpt", "mke2fs -q -t ext4 -b 1024 -O ^64bit -d TREE")
	f, err := os.OpenFile(img, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g := Growth{5 << 40, was.Slot} // of blocks of 1 KiB it can have 4 TiB
	want, err := g.layout(f, layoutOf(t, img))
	if err != nil {
		t.Fatal(err)
	}
	err = g.Grow(t.Context(), f, want, func(text string) { t.Log(text) })
	const says = "grow partition 2 (ext4): grow: resize2fs"
	if fault.Of(err) != fault.Image || fault.Mend(err) != mendGrow || !strings.Contains(err.Error(), says) {
		t.Errorf("Grow() = %v (%s), hint %q", err, fault.Of(err), fault.Mend(err))
	}
}
