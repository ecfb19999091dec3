package refs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/refs"
)

// wide is an ESP in which every directory below EFI has as many entries as are
// just not too many.
type wide struct {
	suffix string // of their names
	opened func() // is called for each directory
	given  *int   // entries that were read
}

func (w wide) Open(name string) (fs.File, error) {
	if name != "EFI" && !strings.HasPrefix(name, "EFI/") || strings.HasSuffix(name, w.suffix) {
		return nil, fs.ErrNotExist
	}
	w.opened()
	d := &wideDirectory{wide: w, left: 4096}
	if name == "EFI" {
		d.suffix = ""
	}
	return d, nil
}

func (w wide) Stat(name string) (fs.FileInfo, error) {
	switch {
	case name == "EFI", strings.HasPrefix(name, "EFI/") && strings.Count(name, "/") == 1:
		return fs.Stat(fstest.MapFS{"dir": {Mode: fs.ModeDir | 0o755}}, "dir")
	}
	return nil, fs.ErrNotExist
}

type wideDirectory struct {
	wide
	left int
}

func (d *wideDirectory) Stat() (fs.FileInfo, error) { return d.wide.Stat("EFI") }
func (d *wideDirectory) Read([]byte) (int, error)   { return 0, fs.ErrInvalid }
func (d *wideDirectory) Close() error               { return nil }

func (d *wideDirectory) ReadDir(n int) ([]fs.DirEntry, error) {
	if d.left == 0 {
		return nil, io.EOF
	}
	var list []fs.DirEntry
	for range min(n, d.left) {
		list = append(list, wideEntry(fmt.Sprintf("%04d%s", d.left, d.suffix)))
		d.left--
	}
	*d.given += len(list)
	return list, nil
}

type wideEntry string

func (e wideEntry) Name() string               { return string(e) }
func (e wideEntry) IsDir() bool                { return false }
func (e wideEntry) Type() fs.FileMode          { return 0 }
func (e wideEntry) Info() (fs.FileInfo, error) { return nil, errors.ErrUnsupported }

// TestWideVolume: directories that are each within bounds are not, together, and
// whoever waits can give up.
func TestWideVolume(t *testing.T) {
	for _, tc := range []struct {
		name, suffix, want string
		most               int // entries that may be read
	}{
		{"of kernels", ".efi", "more than 1024 files", 6 * 4096},
		{"of anything", ".txt", "more than 1048576 entries", 1<<20 + 5*4096},
	} {
		t.Run(tc.name, func(t *testing.T) {
			given := 0
			f := refs.Files{FS: wide{suffix: tc.suffix, opened: func() {}, given: &given}}
			_, err := f.References(t.Context())
			if fault.Of(err) != fault.Image || !strings.Contains(fmt.Sprint(err), tc.want) {
				t.Errorf("References = %v, want %q", err, tc.want)
			}
			if given > tc.most {
				t.Errorf("it read %d entries, of which %d tell enough", given, tc.most)
			}
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cause, directories, given := errors.New("enough"), 0, 0
		_, err := refs.Files{FS: wide{suffix: ".txt", given: &given, opened: func() {
			if directories++; directories == 10 {
				cancel(cause)
			}
		}}}.References(ctx)
		if !errors.Is(err, cause) || directories > 10 {
			t.Errorf("References = %v after %d directories, want the cause after 10", err, directories)
		}
	})
}
