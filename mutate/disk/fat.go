package disk

import (
	"encoding/binary"
	"fmt"
	"io"
)

// maxClusters bounds the FAT volumes that are read: an EFI system partition of
// a gigabyte in the smallest clusters has half as many.
const maxClusters = 4 << 20

// spareFAT is by how many bytes a FAT may be larger than twice what its clusters
// need. Formatters leave some room, to align what follows; the library holds all
// of a FAT in memory several times over.
const spareFAT = 64 << 10

// checkFAT refuses a FAT volume whose own account of itself cannot be, or whose
// clusters are chained in a circle. The library that reads the files trusts
// both, and would follow a circle until memory is out. So the chains are checked
// as the library reads them: all that the FAT has entries for, in entries of as
// many bits as are returned, which say by which of its readers.
//
// Fields are those of Microsoft's "FAT: General Overview of On-Disk Format",
// 1.03. The count of clusters decides between FAT12 and FAT16 alone: a FAT32 of
// few clusters breaks the rules, but mkfs.vfat makes it and Linux reads it.
func checkFAT(r io.ReaderAt, size int64) (bits int, err error) {
	b := make([]byte, 512)
	if _, err := r.ReadAt(b, 0); err != nil {
		return 0, fmt.Errorf("read boot sector: %w", err)
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
		perFAT == 0 || sectors*sector > size {
		return 0, fmt.Errorf("its boot sector is damaged")
	}
	if copies != 2 { // the library takes the second for files, or files for the second
		return 0, fmt.Errorf("it has %d FATs, and only those with two can be read", copies)
	}
	if root := le.Uint32(b[44:]); large && root != 2 {
		return 0, fmt.Errorf("its root directory is at cluster %d, and only one at cluster 2 can be read", root)
	}
	data := sectors - reserved - copies*perFAT - (rootEntries*32+sector-1)/sector
	clusters := data / perCluster
	if data <= 0 || clusters > maxClusters {
		return 0, fmt.Errorf("its boot sector claims %d clusters", clusters)
	}
	switch {
	case large:
		bits = 32
	case clusters < 4085:
		bits = 12
	default:
		bits = 16
	}
	if need := (clusters + 2) * int64(bits) / 8; perFAT*sector > 2*need+spareFAT {
		return 0, fmt.Errorf("its FAT is of %d bytes, for %d clusters", perFAT*sector, clusters)
	}
	fat := make([]byte, perFAT*sector)
	if _, err := r.ReadAt(fat, reserved*sector); err != nil {
		return 0, fmt.Errorf("read FAT: %w", err)
	}
	next := func(c uint32) uint32 { return fatEntry(fat, bits, c) }
	end := uint32(len(fat) * 8 / bits)
	if err := noCircle(next, end); err != nil {
		return 0, err
	}
	root := (reserved + copies*perFAT) * sector
	d := directories{r: r, next: next, end: end, cluster: perCluster * sector, data: root}
	if bits != 32 {
		d.data += (rootEntries*32 + sector - 1) / sector * sector
	}
	return bits, d.check(root, rootEntries*32, bits == 32)
}

// fatEntry is what follows a cluster.
func fatEntry(fat []byte, bits int, c uint32) uint32 {
	le := binary.LittleEndian
	switch bits {
	case 12:
		v := le.Uint16(fat[c+c/2:])
		if c%2 == 1 {
			return uint32(v >> 4)
		}
		return uint32(v & 0xfff)
	case 16:
		return uint32(le.Uint16(fat[2*c:]))
	}
	return le.Uint32(fat[4*c:]) & 0x0fffffff
}

// noCircle follows every chain of the clusters from 2 up to end, each once.
func noCircle(next func(uint32) uint32, end uint32) error {
	seen := make([]uint32, end) // by which walk
	for first := uint32(2); first < end; first++ {
		for c := first; c >= 2 && c < end && seen[c] == 0; {
			seen[c] = first
			c = next(c)
			if c >= 2 && c < end && seen[c] == first {
				return fmt.Errorf("its clusters are chained in a circle at %d", c)
			}
		}
	}
	return nil
}
