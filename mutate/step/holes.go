package step

import (
	"crypto/sha256"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/agent"
)

// maxRanges is how many ranges of data of one file are told apart, so that they
// fit into one header: archive/tar reads at most 1 MiB of records. The last
// takes in all that is after it.
const maxRanges = 10_000

// ranges are where a file has data, in order. A file without holes has one, an
// empty file none... see [agent.SetSparse].
func ranges(f *os.File, st *unix.Stat_t) ([]agent.Range, error) {
	whole := []agent.Range{{Offset: 0, Length: st.Size}}
	if st.Blocks*512 >= st.Size { // all of it is stored
		return whole, nil
	}
	var data []agent.Range
	for at := int64(0); at < st.Size; {
		from, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if err == unix.ENXIO || err == nil && from >= st.Size { // no more
			break
		}
		if err == unix.EINVAL { // a filesystem that does not know of holes
			return whole, nil
		}
		if err != nil {
			return nil, err
		}
		to, err := unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		at = min(to, st.Size)
		if len(data) == maxRanges {
			data[maxRanges-1].Length = at - data[maxRanges-1].Offset
			continue
		}
		data = append(data, agent.Range{Offset: from, Length: at - from})
	}
	if data == nil {
		data = []agent.Range{} // nothing but a hole
	}
	return data, nil
}

var zeroChunk = sync.OnceValue(func() [sha256.Size]byte { return sha256.Sum256(make([]byte, chunk)) })

// zeroSum is the sum of n zeros, at most a chunk.
func zeroSum(n int64) [sha256.Size]byte {
	if n == chunk {
		return zeroChunk()
	}
	return sha256.Sum256(make([]byte, n))
}
