package disk

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/diskfs/go-diskfs/backend/file"
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

// TestWithoutLabels: each label is taken for deleted, be it the last of a directory; a part
// of a long name, which has the label's bit too, is none.
func TestWithoutLabels(t *testing.T) {
	label, other := slot("LABEL      ", 0x08, 0), slot("LABEL      ", 0x28, 0)
	hidden := func(entry string) string { return "\xe5" + entry[1:] }
	files := slot("FILE       ", 0x20, 5) + slot("DIR        ", 0x10, 6) + slot("\x01FILE", 0x0f, 0)
	for _, tc := range []struct{ name, text, want string }{
		{"none", files, files},
		{"the first", label + files, hidden(label) + files},
		{"the last", files + label, files + hidden(label)},
		{"several", label + files + other, hidden(label) + files + hidden(other)},
		{"behind the end", files + slot("", 0, 0) + label, files + slot("", 0, 0) + label},
		{"cut off", files + label[:31], files + label[:31]},
		{"nothing", "", ""},
	} {
		name := filepath.Join(t.TempDir(), "directory")
		if err := os.WriteFile(name, []byte(tc.text), 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, len(tc.text))
		if _, err := (withoutLabels{file.New(f, true)}).ReadAt(b, 0); err != nil || string(b) != tc.want {
			t.Errorf("%s: %q, %v, want %q", tc.name, b, err, tc.want)
		}
		f.Close()
	}
}
