package disk

import (
	"encoding/binary"
	"strings"
	"testing"
)

// folder is a directory's entry for another, which begins at a cluster.
func folder(first int) string { return slot("GRUB       ", 0x10, first) }

// slot is one entry of a directory.
func slot(name string, attributes byte, first int) string {
	b := make([]byte, 32)
	copy(b, name)
	b[11] = attributes
	binary.LittleEndian.PutUint16(b[20:], uint16(first>>16))
	binary.LittleEndian.PutUint16(b[26:], uint16(first))
	return string(b)
}

// chain is the entries of a chain of that many clusters from first on.
func (v volume) chain(first, length int) []entry {
	var all []entry
	for c := first; c < first+length-1; c++ {
		all = append(all, entry{c, c + 1})
	}
	return append(all, entry{first + length - 1, v.endMark()})
}

func (v volume) endMark() int {
	switch clusters := v.sectors - v.reserved - v.copies*v.perFAT - v.rootSectors(); {
	case v.fat32:
		return 0x0fffffff
	case clusters <= lastFAT12:
		return 0xfff
	}
	return 0xffff
}

// TestFATDirectories: a directory is as large as FAT allows, wherever it is, and
// no larger; a file may be.
func TestFATDirectories(t *testing.T) {
	const most = 2 << 20 / 512 // clusters
	name := func(i int) string { return slot("FILE       ", 0x20, 20000+i) }
	for _, kind := range []struct {
		name     string
		volume   volume
		clusters int
	}{
		{"FAT16", ofClusters(30000), 30000}, {"FAT32", ofClusters(70000), 70000},
		{"a small FAT32", smallFAT32(30000), 30000},
	} {
		at := 0 // where the root is
		if kind.volume.fat32 {
			at = 2
		}
		behind := kind.clusters + 2 // the first number that no cluster has
		for _, tc := range []struct {
			name    string
			content map[int]string
			length  int // of the chain from cluster 10 on
			refused string
			more    []entry
		}{
			{"nothing", nil, most + 1, "", nil},
			{"a short directory", map[int]string{at: folder(10)}, 1, "", nil},
			{"the longest", map[int]string{at: folder(10)}, most, "", nil},
			{"a longer one", map[int]string{at: folder(10)}, most + 1, "cluster 10 is larger", nil},
			{"a file that is longer", map[int]string{at: slot("FILE", 0x20, 10)}, most + 1, "", nil},
			{"a part of a long name", map[int]string{at: slot("FILE", 0x0f, 10)}, most + 1, "", nil},
			{"a deleted one", map[int]string{at: slot("\xe5ILE", 0x10, 10)}, most + 1, "", nil},
			{"behind the end", map[int]string{at: strings.Repeat("\x00", 32) + folder(10)}, most + 1, "", nil},
			{"behind files", map[int]string{at: strings.Repeat(name(0), 15) + folder(10)}, most + 1, "cluster 10", nil},
			{"in a directory", map[int]string{
				at: folder(5), 5: folder(5) + folder(0) + folder(10),
			}, most + 1, "cluster 10", nil},
			{"in the second cluster of one", map[int]string{
				at: folder(10), 10: strings.Repeat(name(0), 16), 11: folder(8000),
			}, 2, "cluster 8000", nil},
			{"hidden and called a label", map[int]string{at: slot("GRUB", 0x1a, 10)}, most + 1, "cluster 10", nil},
			{"outside the FAT", map[int]string{at: folder(1<<28 + 10)}, most + 1, "", nil},
			{"behind the last cluster", map[int]string{at: folder(behind)}, most + 1, "", nil},
			{"the longest, which leads behind that", map[int]string{at: folder(10)}, most, "", []entry{{9 + most, behind}}},
			{"a full one, which leads there", map[int]string{
				at: folder(10), 10: strings.Repeat(name(0), 16), behind: folder(8000),
			}, 1, "", []entry{{10, behind}}},
			{"behind the cluster in which one ends", map[int]string{at: folder(10), 11: folder(8000)}, 2, "", nil},
		} {
			v := kind.volume
			v.content = tc.content
			entries := append(v.chain(10, tc.length), v.chain(8000, most+1)...)
			err := v.check(v.size(), append(append(entries, entry{2, v.endMark()}, entry{5, v.endMark()}), tc.more...)...)
			if (err == nil) != (tc.refused == "") || err != nil && !strings.Contains(err.Error(), tc.refused) {
				t.Errorf("%s, %s: %v, want %q", kind.name, tc.name, err, tc.refused)
			}
		}
	}
}

// TestFATRoot: the root of FAT32 is a directory like the others.
func TestFATRoot(t *testing.T) {
	const most = 2 << 20 / 512
	v := smallFAT32(30000)
	for length, sound := range map[int]bool{most: true, most + 1: false} {
		if err := v.check(v.size(), v.chain(2, length)...); (err == nil) != sound {
			t.Errorf("%d clusters: %v", length, err)
		}
	}
}

// TestFATOfManyDirectories: many directories that share a tail are as costly to
// read as if each had its own.
func TestFATOfManyDirectories(t *testing.T) {
	const most, full = 2 << 20 / 512, maxDirectories / maxDirectory
	for count, sound := range map[int]bool{full: true, full + 10: false} {
		v := ofClusters(30000)
		v.rootEntries = 16 * 20
		v.sectors += 19
		var root strings.Builder
		entries := v.chain(1000, most-1)
		for i := range count {
			root.WriteString(folder(100 + i))
			entries = append(entries, entry{100 + i, 1000})
		}
		v.content = map[int]string{0: root.String()}
		err := v.check(v.size(), entries...)
		if (err == nil) != sound || err != nil && err.Error() != "its directories are larger than 256 MiB" {
			t.Errorf("%d directories: %v", count, err)
		}
	}
}

// TestFATLongNames: a name is of 20 parts at most, also across two clusters.
func TestFATLongNames(t *testing.T) {
	part := slot("\x01", 0x0f, 0)
	for _, tc := range []struct {
		name  string
		text  string
		sound bool
	}{
		{"the longest", slot("\x54", 0x0f, 0) + strings.Repeat(part, 19) + folder(0), true},
		{"one part more", slot("\x54", 0x0f, 0) + strings.Repeat(part, 20) + folder(0), false},
		{"two names", strings.Repeat(strings.Repeat(part, 20)+folder(0), 2), true},
		{"a name that begins anew", strings.Repeat(part, 20) + slot("\x54", 0x0f, 0) + strings.Repeat(part, 19), true},
		{"around a deleted one", strings.Repeat(part, 10) + slot("\xe5", 0x0f, 0) + strings.Repeat(part, 11), false},
	} {
		v := ofClusters(30000)
		v.content = map[int]string{0: folder(10), 10: tc.text}
		if err := v.check(v.size(), v.chain(10, 4)...); (err == nil) != tc.sound {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}
