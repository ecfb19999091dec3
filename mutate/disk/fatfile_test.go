package disk

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/diskfs/go-diskfs/filesystem/fat12"
)

// TestFileInPieces: wherever in the image the pieces of a file are, it is read as one, as
// [io.ReaderAt] promises.
func TestFileInPieces(t *testing.T) {
	image := []byte("....ssssscccc....aa..bbb....") // a volume from byte 4 on
	name := filepath.Join(t.TempDir(), "image.raw")
	if err := os.WriteFile(name, image, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	piece := func(text string) fat12.DiskRange {
		return fat12.DiskRange{Offset: uint64(bytes.Index(image, []byte(text)) - 4), Length: uint64(len(text))}
	}
	for want, pieces := range map[string][]fat12.DiskRange{
		"":               nil,
		"aa":             {piece("aa")},
		"aabbb":          {piece("aa"), piece("bbb")},
		"bbbaaccccaa":    {piece("bbb"), piece("aa"), piece("cccc"), piece("aa")},
		"sssssccccaabbb": {piece("sssss"), piece("cccc"), piece("aa"), piece("bbb")},
	} {
		r := fatRanges{fatFS{image: f, volume: Volume{Offset: 4}}, pieces}
		if err := iotest.TestReader(io.NewSectionReader(r, 0, int64(len(want))), []byte(want)); err != nil {
			t.Errorf("%q: %v", want, err)
		}
		b := make([]byte, len(want)+1)
		if n, err := r.ReadAt(b, 0); string(b[:n]) != want || err != io.EOF {
			t.Errorf("%q, read beyond its end: %q, %v", want, b[:n], err)
		}
	}
	f.Close()
	r := fatRanges{fatFS{image: f}, []fat12.DiskRange{piece("aa"), piece("bbb")}}
	if n, err := r.ReadAt(make([]byte, 5), 0); n > 0 || !errors.Is(err, os.ErrClosed) {
		t.Errorf("%d bytes are read of what cannot be read, %v", n, err)
	}
}
