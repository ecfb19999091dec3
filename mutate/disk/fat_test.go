package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
)

// TestFATCircle: a cluster that follows itself is found in all three kinds of
// FAT, before the library gets to follow it.
func TestFATCircle(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	for _, tc := range []struct {
		bits, size string
		entry      string // cluster 3's, as it must be to name itself
		at         int64  // of the entry in the FAT
	}{
		{"12", "4M", "\x03\x30\x00", 3 + 1}, // the high nibble of byte 4 and byte 5
		{"16", "16M", "\x03\x00", 6},
		{"32", "64M", "\x03\x00\x00\x00", 12},
	} {
		t.Run("FAT"+tc.bits, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "fat")
			script := "truncate -s " + tc.size + " $1 && mkfs.vfat -F " + tc.bits + " $1 && printf x | mcopy -i $1 - ::/file"
			if out, err := exec.Command("sh", "-euc", script, "sh", name).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			fi, _ := f.Stat()
			if _, err := checkFAT(f, fi.Size()); err != nil {
				t.Fatalf("a sound volume: %v", err)
			}
			b := make([]byte, 64)
			if _, err := f.ReadAt(b, 0); err != nil {
				t.Fatal(err)
			}
			reserved := int64(b[14]) | int64(b[15])<<8
			sector := int64(b[11]) | int64(b[12])<<8
			if tc.bits == "12" {
				tc.entry = "\x30\x00"
			}
			if _, err := f.WriteAt([]byte(tc.entry), reserved*sector+tc.at); err != nil {
				t.Fatal(err)
			}
			if _, err := checkFAT(f, fi.Size()); err == nil || !strings.Contains(err.Error(), "in a circle") {
				t.Errorf("checkFAT = %v", err)
			}
			v := Volume{Size: fi.Size(), FS: "vfat"}
			if _, err := v.Open(f, ReadOnly); err == nil {
				t.Error("it was opened")
			}
		})
	}
}

// volume is what a FAT's boot sector says, in sectors but for the first. The
// FAT itself is zeros, but for what a test enters.
type volume struct {
	sector                       int // bytes
	perCluster, reserved, copies int
	rootEntries, sectors, perFAT int
	fat32                        bool
	root                         uint32         // its cluster, in FAT32
	content                      map[int]string // of clusters; of cluster 0, the root's own place
}

// cluster counts of the boundaries between the kinds of FAT (Microsoft's
// "FAT: General Overview of On-Disk Format", 1.03).
const (
	lastFAT12, firstFAT16 = 4084, 4085
	lastFAT16, firstFAT32 = 65524, 65525
)

// ofClusters is a sound volume of that many clusters.
func ofClusters(n int) volume {
	v := volume{sector: 512, perCluster: 1, reserved: 1, copies: 2, root: 2, perFAT: (n+2)*4/512 + 1, fat32: n >= firstFAT32}
	if !v.fat32 {
		v.rootEntries = 16
	}
	v.sectors = v.reserved + v.copies*v.perFAT + v.rootSectors() + n
	return v
}

// rootSectors is how many sectors a root directory has that is no chain of clusters.
func (v volume) rootSectors() int { return (v.rootEntries*32 + v.sector - 1) / v.sector }

// smallFAT32 is one of too few clusters for its kind, as mkfs.vfat -F 32 makes it.
func smallFAT32(n int) volume {
	v := ofClusters(n)
	v.sectors -= v.rootSectors()
	v.fat32, v.rootEntries = true, 0
	return v
}

func (v volume) size() int64 { return int64(v.sectors) * int64(v.sector) }

// entry of the FAT, of as many bits as the volume's kind has.
type entry struct{ cluster, next int }

// check checks the volume with those entries, as if it had size bytes.
func (v volume) check(size int64, entries ...entry) error {
	le := binary.LittleEndian
	head := make([]byte, v.reserved*v.sector+v.perFAT*v.sector+512)
	le.PutUint16(head[11:], uint16(v.sector))
	head[13], head[16] = byte(v.perCluster), byte(v.copies)
	le.PutUint16(head[14:], uint16(v.reserved))
	le.PutUint16(head[17:], uint16(v.rootEntries))
	if v.sectors < 1<<16 {
		le.PutUint16(head[19:], uint16(v.sectors))
	} else {
		le.PutUint32(head[32:], uint32(v.sectors))
	}
	if !v.fat32 {
		le.PutUint16(head[22:], uint16(v.perFAT))
	} else {
		le.PutUint32(head[36:], uint32(v.perFAT))
		le.PutUint32(head[44:], v.root)
	}
	clusters := 0
	if v.perCluster > 0 && v.sector > 0 {
		clusters = (v.sectors - v.reserved - v.copies*v.perFAT - v.rootSectors()) / v.perCluster
	}
	fat := head[v.reserved*v.sector:]
	for _, e := range entries {
		switch {
		case v.fat32:
			le.PutUint32(fat[4*e.cluster:], uint32(e.next))
		case clusters <= lastFAT12: // two entries in three bytes
			at, half := e.cluster*3/2, e.cluster%2*4
			old := le.Uint16(fat[at:])
			le.PutUint16(fat[at:], old&^(0xfff<<half)|uint16(e.next)<<half)
		default:
			le.PutUint16(fat[2*e.cluster:], uint16(e.next))
		}
	}
	data := (v.reserved + v.copies*v.perFAT) * v.sector
	for c, text := range v.content {
		at := data
		if c > 0 {
			at += v.rootSectors()*v.sector + (c-2)*v.perCluster*v.sector
		}
		head = append(head, make([]byte, max(0, at+len(text)-len(head)))...)
		copy(head[at:], text)
	}
	_, err := checkFAT(bytes.NewReader(head), size)
	return err
}

// TestFATThatCannotBe: a boot sector is believed up to the limits of each field,
// and not beyond.
func TestFATThatCannotBe(t *testing.T) {
	with := func(change func(*volume)) volume {
		v := ofClusters(1000)
		change(&v)
		return v
	}
	large := func(change func(*volume)) volume {
		v := smallFAT32(1000)
		change(&v)
		return v
	}
	for _, tc := range []struct {
		name   string
		volume volume
		sound  bool
	}{
		{"an ordinary volume", ofClusters(1000), true},
		{"sectors of 4096 bytes", with(func(v *volume) { v.sector = 4096 }), true},
		{"sectors of 256 bytes", with(func(v *volume) { v.sector = 256 }), false},
		{"sectors of 8192 bytes", with(func(v *volume) { v.sector = 8192 }), false},
		{"sectors of 1000 bytes", with(func(v *volume) { v.sector = 1000 }), false},
		{"no reserved sector", with(func(v *volume) { v.reserved = 0 }), false},
		{"no sector to a cluster", with(func(v *volume) { v.perCluster = 0 }), false},
		{"128 sectors to a cluster", with(func(v *volume) { v.perCluster = 128 }), true},
		{"no FAT", with(func(v *volume) { v.copies = 0 }), false},
		{"one FAT", with(func(v *volume) { v.copies, v.sectors = 1, v.sectors-v.perFAT }), true},
		{"three FATs", with(func(v *volume) { v.copies, v.sectors = 3, v.sectors+v.perFAT }), true},
		{"a FAT of no sectors", with(func(v *volume) { v.perFAT = 0 }), false},
		{"no room for clusters", with(func(v *volume) { v.sectors = v.reserved + v.copies*v.perFAT + 1 }), false},
		{"room for one cluster", with(func(v *volume) { v.sectors = v.reserved + v.copies*v.perFAT + 2 }), true},
		{"a root directory of one entry", with(func(v *volume) { v.rootEntries = 1 }), true},
		{"a root directory that takes all", with(func(v *volume) { v.rootEntries = 16 * 1001 }), false},
		{"a root directory that leaves one sector", with(func(v *volume) { v.rootEntries = 16 * 1000 }), true},
		{"a root directory that leaves less than one", with(func(v *volume) { v.rootEntries = 16*1000 + 1 }), false},
		{"as many clusters as are read", ofClusters(4 << 20), true},
		{"one more", ofClusters(4<<20 + 1), false},
		{"the smallest FAT16", ofClusters(firstFAT16), true},
		{"the smallest FAT32", ofClusters(firstFAT32), true},
		{"a root directory behind something else", large(func(v *volume) { v.root = 3 }), true},
		{"in the last cluster", large(func(v *volume) { v.root = 1001 }), true},
		{"behind that", large(func(v *volume) { v.root = 1002 }), false},
		{"in no cluster", large(func(v *volume) { v.root = 1 }), false},
		{"of FAT32 at a place of its own", large(func(v *volume) { v.rootEntries, v.sectors = 16, v.sectors+1 }), false},
		{"of FAT16 nowhere", with(func(v *volume) { v.rootEntries, v.sectors = 0, v.sectors-1 }), false},
	} {
		if err := tc.volume.check(tc.volume.size()); (err == nil) != tc.sound {
			t.Errorf("%s: %v", tc.name, err)
		}
		if err := tc.volume.check(tc.volume.size() - 1); err == nil {
			t.Errorf("%s is accepted where it has no room", tc.name)
		}
	}
	v := ofClusters(firstFAT16)
	if err := v.check(v.size() + 1); err != nil {
		t.Errorf("a partition that is larger than its volume: %v", err)
	}
	for _, n := range []int{0, 511, 512, 1023} {
		if _, err := checkFAT(io.NewSectionReader(bytes.NewReader(make([]byte, n)), 0, int64(n)), 1<<30); err == nil {
			t.Errorf("a volume of %d zero bytes is accepted", n)
		}
	}
}

// TestFATChains: every circle among the clusters that the FAT has entries for is
// found, and nothing else is taken for one, in each kind of FAT.
func TestFATChains(t *testing.T) {
	for _, v := range []volume{
		ofClusters(1000), ofClusters(lastFAT12), ofClusters(firstFAT16), ofClusters(lastFAT16), ofClusters(firstFAT32),
		ofClusters(70000), smallFAT32(1000), smallFAT32(firstFAT16), smallFAT32(lastFAT16),
	} {
		clusters := v.sectors - v.reserved - v.copies*v.perFAT - v.rootSectors()
		last := clusters + 1 // the first has number 2
		end := map[bool]int{true: 0xfff, false: 0xffff}[clusters <= lastFAT12]
		if v.fat32 {
			end = 0x0fffffff
		}
		for _, tc := range []struct {
			name    string
			entries []entry
			circle  bool
		}{
			{"chains that end", []entry{{2, 3}, {3, 4}, {4, end}, {5, 6}, {6, end}}, false},
			{"a chain backwards", []entry{{6, 5}, {5, 4}, {4, 3}, {3, 2}, {2, end}}, false},
			{"two chains with one end", []entry{{2, 5}, {3, 5}, {5, 6}, {6, end}}, false},
			{"a chain to what is free", []entry{{2, 9}}, false},
			{"a chain beyond the last", []entry{{2, last + 1}}, false},
			{"a chain to the first two, which are none", []entry{{0, 1}, {1, 0}, {2, 1}, {3, 0}}, false},
			{"a cluster that follows itself", []entry{{3, 3}}, true},
			{"the first of all", []entry{{2, 2}}, true},
			{"the last of all", []entry{{last, last}}, true},
			{"the one before", []entry{{last - 1, last - 1}}, true},
			{"behind the last, which the FAT has room for", []entry{{last + 1, last + 1}}, false},
			{"two that follow each other", []entry{{7, 8}, {8, 7}}, true},
			{"a long way round", []entry{{2, 5}, {5, last}, {last, 4}, {4, 3}, {3, 5}}, true},
			{"a circle that a chain leads into", []entry{{10, 4}, {4, 5}, {5, 4}}, true},
		} {
			err := v.check(v.size(), tc.entries...)
			if tc.circle && (err == nil || !strings.Contains(err.Error(), "circle")) || !tc.circle && err != nil {
				t.Errorf("%d clusters, FAT32 %t, %s: %v", clusters, v.fat32, tc.name, err)
			}
		}
	}
	// Four bits of an entry of FAT32 are not the number's.
	v := ofClusters(firstFAT32)
	if err := v.check(v.size(), entry{3, 0xf0000003}); err == nil {
		t.Error("a circle is not found behind reserved bits")
	}
}

// TestFATLargerThanItsClusters: a formatter may leave room in a FAT, but not so
// much that reading it takes the memory of another volume.
func TestFATLargerThanItsClusters(t *testing.T) {
	const spare = 128 // sectors
	for _, tc := range []struct {
		clusters, need int // the latter in sectors
		fat32          bool
	}{
		{1022, 3, false}, {8190, 32, false}, {1022, 8, true}, {131070, 1024, true},
	} {
		for perFAT, sound := range map[int]bool{
			tc.need: true, tc.need + 8: true, 2*tc.need + spare: true, 2*tc.need + spare + 1: false, 60000: false,
		} {
			v := volume{sector: 512, perCluster: 1, reserved: 1, copies: 2, rootEntries: 16, perFAT: perFAT, fat32: tc.fat32, root: 2}
			if tc.fat32 {
				v.rootEntries = 0
			}
			v.sectors = v.reserved + v.copies*perFAT + v.rootSectors() + tc.clusters
			size := fmt.Sprintf("its FAT is of %d bytes, for %d clusters", perFAT*512, tc.clusters)
			if err := v.check(v.size()); (err == nil) != sound || err != nil && err.Error() != size {
				t.Errorf("%d sectors of FAT for %d clusters, FAT32 %t: %v", perFAT, tc.clusters, tc.fat32, err)
			}
		}
	}
}

// TestFATSmallerThanItsClusters: clusters without an entry in the FAT are in no chain.
func TestFATSmallerThanItsClusters(t *testing.T) {
	v := volume{sector: 512, perCluster: 1, reserved: 1, copies: 2, rootEntries: 16, perFAT: 1, sectors: 3000}
	if err := v.check(v.size()); err != nil {
		t.Errorf("it is refused: %v", err)
	}
	const entries = 512 * 8 / 12
	if err := v.check(v.size(), entry{entries - 1, entries - 1}); err == nil {
		t.Error("a circle in the last entry is not found")
	}
	if err := v.check(v.size(), entry{2, entries}); err != nil {
		t.Errorf("a chain out of the FAT: %v", err)
	}
}

// FuzzOpenFAT: whatever is in a volume, it is refused, or its files can be listed and
// read, in bounded time and memory and within the volume.
func FuzzOpenFAT(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 1024))
	for _, options := range [][]string{{"-F", "12"}, {"-F", "12", "-f", "1"}, {"-F", "16", "-s", "1"}, {"-F", "32", "-s", "1", "-f", "1"}} {
		name := filepath.Join(f.TempDir(), "fat")
		// mtools does not write so small a FAT32.
		script := `n=$1; shift; truncate -s 3M $n; mkfs.vfat $n "$@"; [ $2 = 32 ] || mmd -i $n ::/dir; [ $2 = 32 ] ||
			printf text | mcopy -i $n - "::/dir/a long name"`
		if out, err := exec.Command("sh", append([]string{"-euc", script, "sh", name}, options...)...).CombinedOutput(); err != nil {
			f.Fatalf("%v: %s", err, out)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.TrimRight(b, "\x00"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := os.Create(filepath.Join(t.TempDir(), "fat"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.Write(b); err != nil {
			t.Fatal(err)
		}
		v := Volume{Size: 4 << 20, FS: "vfat"}
		if err := file.Truncate(v.Size); err != nil {
			t.Fatal(err)
		}
		tree, err := v.openFAT(file, ReadWrite)
		if err != nil {
			return
		}
		dirs := []string{"."}
		for looked := 0; len(dirs) > 0 && looked < 10; looked, dirs = looked+1, dirs[1:] {
			list, _ := tree.ReadDir(dirs[0])
			for _, e := range list[:min(len(list), 10)] {
				name := path.Join(dirs[0], e.Name())
				if e.IsDir() && strings.Count(name, "/") < 5 {
					dirs = append(dirs, name)
				} else if fi, err := tree.Stat(name); err == nil && fi.Size() < 1<<16 {
					tree.ReadFile(name)
					tree.Overwrite(name, make([]byte, fi.Size()), 0)
				}
			}
		}
		if fi, err := file.Stat(); err != nil || fi.Size() != v.Size {
			t.Errorf("the volume has %d bytes now: %v", fi.Size(), err)
		}
	})
}
