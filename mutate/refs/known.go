package refs

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"syscall"
)

// Known is a set of files, each in one state: those in which nothing was found, and
// which need no second look as long as they are the same. A step cannot change a file
// and keep its state, because the kernel sets the time of the change. FAT has no such
// time, so there the state is the place of the bytes, where they are known to be the same.
//
// Of each only a hash is kept, of 64 bits: a system has thousands.
type Known map[uint64]bool

// MarshalBinary is the form in which the set is kept.
func (k Known) MarshalBinary() ([]byte, error) {
	var b []byte
	for _, h := range slices.Sorted(maps.Keys(k)) {
		b = binary.BigEndian.AppendUint64(b, h)
	}
	return b, nil
}

// KnownFrom reads what [Known.MarshalBinary] has written. What is cut off is none.
func KnownFrom(b []byte) Known {
	k := make(Known, len(b)/8)
	for ; len(b) >= 8; b = b[8:] {
		k[binary.BigEndian.Uint64(b)] = true
	}
	return k
}

// state sums up which file of the tree it is, and in which state. It is false where that
// cannot be told.
func (f Files) state(w walked) (uint64, bool) {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %d\n", f.Tree, w.name, w.info.Size())
	switch s, ok := w.info.Sys().(*syscall.Stat_t); {
	case ok:
		fmt.Fprintf(h, "%d %d %d\n", s.Ino, s.Mtim.Nano(), s.Ctim.Nano())
	case f.Unmoved != nil:
		place, same := f.Unmoved(w.name, w.info.Size())
		if !same {
			return 0, false
		}
		fmt.Fprintln(h, place)
	default:
		return 0, false
	}
	return binary.BigEndian.Uint64(h.Sum(nil)), true
}
