package content_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/content"
)

func TestMarshalRoundTrip(t *testing.T) {
	dir := t.TempDir()
	for i, size := range []int{0, 1, content.Chunk, 3*content.Chunk + 1} {
		f := create(t, filepath.Join(dir, fmt.Sprint(i)))
		writeAt(t, f, 0, random(uint64(i), size))
		truncate(t, f, int64(size)+7*content.Chunk)
		sums := sum(t, f)
		if got, want := unmarshal(t, marshal(t, sums)).Digest(), sums.Digest(); got != want {
			t.Errorf("%d bytes: digest %s after the round trip, was %s", size, got, want)
		}
	}
}

// listOf is a list of those chunks.
func listOf(size uint64, chunks ...uint64) []byte {
	list := binary.BigEndian.AppendUint64([]byte("imgmut content v2\n"), size)
	for _, c := range chunks {
		list = append(binary.BigEndian.AppendUint64(list, c), bytes.Repeat([]byte{7}, 32)...)
	}
	return list
}

func TestUnmarshalRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		b    []byte
		says string
	}{
		{"nothing", nil, "do not begin with"},
		{"the form before this one", append(binary.BigEndian.AppendUint64(nil, 1), make([]byte, 32)...), "do not begin with"},
		{"a later form", bytes.Replace(listOf(1), []byte("v2"), []byte("v3"), 1), "do not begin with"},
		{"half a size", listOf(1)[:len(listOf(1))-1], "not a list"},
		{"half a sum", listOf(1, 0)[:len(listOf(1, 0))-1], "not a list"},
		{"a byte too many", append(listOf(1, 0), 0), "not a list"},
		{"a chunk behind the end", listOf(content.Chunk, 1), "chunk 1 after chunk -1 of 1048576 bytes"},
		{"a chunk of nothing", listOf(0, 0), "chunk 0"},
		{"a chunk twice", listOf(9*content.Chunk, 3, 3), "chunk 3 after chunk 3"},
		{"chunks in no order", listOf(9*content.Chunk, 3, 2), "chunk 2 after chunk 3"},
		{"a chunk below zero", listOf(9*content.Chunk, 1<<64-1), "chunk -1"},
		{"a size below zero", listOf(1<<64 - 1), "below zero"},
		{"a size far below zero", listOf(1<<63, 0), "below zero"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := new(content.Sums).UnmarshalBinary(c.b)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
		})
	}
	if err := new(content.Sums).UnmarshalBinary(listOf(1<<63-1, 1<<43-1)); err != nil {
		t.Errorf("the last chunk of the largest file there can be: %v", err)
	}
}

// FuzzUnmarshal: what is accepted marshals to the same bytes, and can be used.
func FuzzUnmarshal(f *testing.F) {
	f.Add(listOf(0))
	f.Add(listOf(1, 0))
	f.Add(listOf(9*content.Chunk, 0, 3, 8))
	f.Add(listOf(1<<64-1, 0))
	f.Add(listOf(1<<63-1, 5))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s content.Sums
		if s.UnmarshalBinary(b) != nil {
			return
		}
		if got := marshal(t, &s); !bytes.Equal(got, b) {
			t.Errorf("%x marshals to %x", b, got)
		}
		if d := s.Digest(); len(d) != 64 {
			t.Errorf("digest %q", d)
		}
	})
}
