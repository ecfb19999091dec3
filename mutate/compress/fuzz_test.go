package compress_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/compress"
)

// FuzzReader: bytes that begin like something compressed are that, or an error.
func FuzzReader(f *testing.F) {
	fixtures.Require(f, fixtures.Tools)
	text := string(bytes.Repeat([]byte("what is in it. "), 500))
	for _, how := range []string{"gzip", "zstd", "xz", "xz -T2 --block-size=4096", "lzma", "bzip2", "lz4", "lz4 -l"} {
		packed := fixtures.Program(f, text, "sh", "-c", how+" -c")
		f.Add([]byte(packed))
		f.Add([]byte(packed + packed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := compress.Of(b)
		if m.Name == "" {
			return
		}
		r, err := m.NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		defer r.Close()
		_, _ = io.CopyN(io.Discard, r, 64<<20)
	})
}
