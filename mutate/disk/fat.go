package disk

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// maxClusters bounds the FAT volumes that are read: an EFI system partition of
// a gigabyte in the smallest clusters has half as many.
const maxClusters = 4 << 20

// spareFAT is by how many bytes a FAT may be larger than twice what its clusters
// need. Formatters leave some room, to align what follows; the library holds all
// of a FAT in memory several times over.
const spareFAT = 64 << 10

// fatVolume is a FAT volume as its boot sector describes it: where its parts are, in
// bytes from its start, and its first FAT, which also tells the library that reads
// the files what follows each cluster (as a [fat12.FATTable]).
type fatVolume struct {
	bits     int // of an entry of the FAT
	fat      []byte
	clusters uint32 // no cluster has this number, or a higher one
	cluster  int64  // size of one
	data     int64  // where the first is, which has number 2
	root     uint32 // first cluster of the root directory; 0 if that has a place of its own
	rootAt   int64  // that place
	entries  int64  // how many entries it has room for
}

// checkFAT refuses a FAT volume whose own account of itself cannot be, or whose
// clusters are chained in a circle. The library that reads the files trusts
// both, and would follow a circle until memory is out.
//
// Fields are those of Microsoft's "FAT: General Overview of On-Disk Format",
// 1.03. The count of clusters decides between FAT12 and FAT16 alone: a FAT32 of
// few clusters breaks the rules, but mkfs.vfat makes it and Linux reads it.
func checkFAT(r io.ReaderAt, size int64) (*fatVolume, error) {
	b := make([]byte, 512)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read boot sector: %w", err)
	}
	le := binary.LittleEndian
	sector, perCluster := int64(le.Uint16(b[11:])), int64(b[13])
	reserved, copies, rootEntries := int64(le.Uint16(b[14:])), int64(b[16]), int64(le.Uint16(b[17:]))
	sectors, perFAT := int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:]))
	if sectors == 0 {
		sectors = int64(le.Uint32(b[32:]))
	}
	large := perFAT == 0
	if large {
		perFAT = int64(le.Uint32(b[36:]))
	}
	if sector < 512 || sector > 4096 || sector&(sector-1) != 0 || perCluster == 0 || reserved == 0 || copies == 0 ||
		perFAT == 0 || sectors*sector > size || large != (rootEntries == 0) {
		return nil, fmt.Errorf("its boot sector is damaged")
	}
	v := &fatVolume{cluster: perCluster * sector, entries: rootEntries, rootAt: (reserved + copies*perFAT) * sector}
	v.data = v.rootAt + (rootEntries*32+sector-1)/sector*sector
	clusters := (sectors - v.data/sector) / perCluster
	if v.data >= sectors*sector || v.data > math.MaxUint32 || clusters > maxClusters {
		return nil, fmt.Errorf("its boot sector claims %d clusters", clusters)
	}
	switch {
	case large:
		v.bits, v.root = 32, le.Uint32(b[44:])
	case clusters < 4085:
		v.bits = 12
	default:
		v.bits = 16
	}
	if need := (clusters + 2) * int64(v.bits) / 8; perFAT*sector > 2*need+spareFAT {
		return nil, fmt.Errorf("its FAT is of %d bytes, for %d clusters", perFAT*sector, clusters)
	}
	v.fat = make([]byte, perFAT*sector)
	if _, err := r.ReadAt(v.fat, reserved*sector); err != nil {
		return nil, fmt.Errorf("read FAT: %w", err)
	}
	v.clusters = uint32(min(clusters+2, int64(len(v.fat)*8/v.bits)))
	if large && (v.root < 2 || v.root >= v.clusters) {
		return nil, fmt.Errorf("its root directory is at cluster %d, and it has %d", v.root, clusters)
	}
	if err := v.noCircle(); err != nil {
		return nil, err
	}
	return v, (&directories{r: r, fatVolume: v}).check()
}

// next is what follows a cluster.
func (v *fatVolume) next(c uint32) uint32 {
	le := binary.LittleEndian
	switch v.bits {
	case 12:
		n := le.Uint16(v.fat[c+c/2:])
		if c%2 == 1 {
			return uint32(n >> 4)
		}
		return uint32(n & 0xfff)
	case 16:
		return uint32(le.Uint16(v.fat[2*c:]))
	}
	return le.Uint32(v.fat[4*c:]) & 0x0fffffff
}

// goesBack says whether a cluster is followed by itself or one before it. A circle has such
// a cluster, and most volumes have none.
func (v *fatVolume) goesBack() bool {
	for c := uint32(2); c < v.clusters; c++ {
		if n := v.next(c); n >= 2 && n <= c {
			return true
		}
	}
	return false
}

// noCircle follows every chain of the clusters, each once.
func (v *fatVolume) noCircle() error {
	if !v.goesBack() {
		return nil
	}
	seen := make([]uint32, v.clusters) // by which walk
	for first := uint32(2); first < v.clusters; first++ {
		for c := first; c >= 2 && c < v.clusters && seen[c] == 0; {
			seen[c] = first
			c = v.next(c)
			if c >= 2 && c < v.clusters && seen[c] == first {
				return fmt.Errorf("its clusters are chained in a circle at %d", c)
			}
		}
	}
	return nil
}
