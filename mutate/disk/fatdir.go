package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// maxDirectory is the size of the largest directory that FAT allows: 65,536
	// entries of 32 bytes.
	maxDirectory = 65536 * 32
	// maxDirectories bounds all directories of a volume together: 8,192 of them in the
	// largest ordinary clusters.
	maxDirectories = 256 << 20
	// maxParts is of how many entries a long name may be. The library joins them
	// one by one, in a time that is the square of their number.
	maxParts = 20
)

// What is in an entry of a directory.
const (
	last, deleted               = 0, 0xe5 // in place of a name's first letter
	longName, isLabel, isFolder = 0x0f, 0x08, 0x10
	firstPart                   = 0x40 // of a long name, in its number
)

// directories finds the directories of a FAT volume whose chains are known to
// end, and how long they are. The library reads a directory as a whole, with
// all clusters of its chain, which may be all of a sparse volume.
type directories struct {
	*fatVolume
	r     io.ReaderAt
	total int64 // bytes of directories
	parts int   // of the long name that is being read
	seen  []bool
	todo  []uint32 // first clusters
}

// check looks at every directory that can be reached from the root, which is a
// chain of clusters, or is at a place of its own.
func (d *directories) check() error {
	d.seen = make([]bool, d.clusters)
	if d.root != 0 {
		d.add(d.root)
	} else if _, err := d.read(d.rootAt, 32*d.entries); err != nil {
		return err
	}
	for len(d.todo) > 0 {
		first := d.todo[len(d.todo)-1]
		d.todo = d.todo[:len(d.todo)-1]
		if err := d.chain(first); err != nil {
			return err
		}
	}
	return nil
}

// add notes a directory, unless its cluster is none that the library would read.
func (d *directories) add(first uint32) {
	if first >= 2 && first < d.clusters && !d.seen[first] {
		d.seen[first] = true
		d.todo = append(d.todo, first)
	}
}

// chain looks at one directory: first at how long it is, then at what is in it.
func (d *directories) chain(first uint32) error {
	length := int64(0)
	for c := first; c >= 2 && c < d.clusters; c = d.next(c) {
		if length += d.cluster; length > maxDirectory {
			return fmt.Errorf("its directory at cluster %d is larger than any can be", first)
		}
	}
	if d.total += length; d.total > maxDirectories {
		return fmt.Errorf("its directories are larger than %d MiB", maxDirectories>>20)
	}
	d.parts = 0
	for c := first; c >= 2 && c < d.clusters; c = d.next(c) {
		more, err := d.read(d.data+int64(c-2)*d.cluster, d.cluster)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// read looks at a part of a directory, and notes the directories in it. more
// is false if the directory ends there.
func (d *directories) read(at, size int64) (more bool, err error) {
	b := make([]byte, size)
	if _, err := d.r.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read directory: %w", err)
	}
	le := binary.LittleEndian
	for ; len(b) >= 32; b = b[32:] {
		switch attributes := b[11]; {
		case b[0] == last:
			return false, nil
		case b[0] == deleted:
		case attributes == longName:
			if b[0]&firstPart != 0 {
				d.parts = 0
			}
			if d.parts++; d.parts > maxParts {
				return false, fmt.Errorf("a name in its directories is longer than any can be")
			}
		default:
			d.parts = 0
			if attributes&isFolder != 0 {
				d.add(uint32(le.Uint16(b[20:]))<<16 | uint32(le.Uint16(b[26:])))
			}
		}
	}
	return true, nil
}
