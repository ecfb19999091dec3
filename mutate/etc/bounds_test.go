package etc_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/imgmut/imgmut/mutate/etc"
)

// endless is a filesystem that says of a file that it is small, and then gives
// bytes and entries for as long as it is asked.
type endless struct{ t *testing.T }

func (e endless) Open(string) (fs.File, error) { return endlessFile(e), nil }

type endlessFile struct{ t *testing.T }

func (f endlessFile) Stat() (fs.FileInfo, error) {
	return fs.Stat(fstest.MapFS{"x": {Mode: 0o644}}, "x")
}
func (f endlessFile) Read(b []byte) (int, error) { return len(b), nil }
func (f endlessFile) Close() error               { return nil }

func (f endlessFile) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		f.t.Fatal("all of a directory is asked for")
	}
	entries, err := fs.ReadDir(fstest.MapFS{"x": {}}, ".")
	return slices.Repeat(entries, n), err
}

func TestReadEndsWithoutAnEnd(t *testing.T) {
	if text := etc.Read(endless{t}, "file"); text != "" {
		t.Errorf("%d bytes of a file without an end", len(text))
	}
	if names, err := etc.ReadDir(endless{t}, "dir", 1000); !errors.Is(err, etc.ErrTooMany) {
		t.Errorf("ReadDir = %d names, %v, want %v", len(names), err, etc.ErrTooMany)
	}
}

func TestReadUpTo(t *testing.T) {
	files := fstest.MapFS{"file": {Data: []byte("text")}, "dir/file": {}}
	for _, tc := range []struct {
		name string
		most int64
		want string
	}{{"file", 5, "text"}, {"file", 4, "text"}, {"file", 3, ""}, {"none", 4, ""}, {"dir", 1 << 20, ""}} {
		if got := etc.ReadUpTo(files, tc.name, tc.most); got != tc.want {
			t.Errorf("ReadUpTo(%s, %d) = %q, want %q", tc.name, tc.most, got, tc.want)
		}
	}
}

func TestReadDir(t *testing.T) {
	files := fstest.MapFS{"dir/b": {}, "dir/a": {}, "dir/c/x": {}}
	for most, want := range map[int]string{4: "a b c", 3: "a b c"} {
		if names, err := etc.ReadDir(files, "dir", most); err != nil || strings.Join(names, " ") != want {
			t.Errorf("ReadDir up to %d = %q, %v, want %q", most, names, err, want)
		}
	}
	if _, err := etc.ReadDir(files, "dir", 2); !errors.Is(err, etc.ErrTooMany) {
		t.Errorf("ReadDir of more = %v, want %v", err, etc.ErrTooMany)
	}
	if _, err := etc.ReadDir(files, "none", 2); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadDir of nothing = %v", err)
	}
}
