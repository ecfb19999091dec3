package mutate

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
)

// TestAChangeOfAFileShows without reading it, also where the change comes right
// after the identity was taken and leaves the size as it is.
func TestAChangeOfAFileShows(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(f *os.File) error
		same   bool // to sameFile, which passes over what publishing changes
	}{
		{"nothing", func(*os.File) error { return nil }, true},
		{"read", func(f *os.File) error { _, err := f.ReadAt(make([]byte, 1), 0); return err }, true},
		{"a byte", func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 0); return err }, false},
		{"longer", func(f *os.File) error { return f.Truncate(1 << 20) }, false},
		{"a byte, and the old time set again", func(f *os.File) error {
			fi, err := f.Stat()
			if err == nil {
				_, err = f.WriteAt([]byte("y"), 0)
			}
			return errors.Join(err, os.Chtimes(f.Name(), time.Time{}, fi.ModTime()))
		}, true},
		{"another name", func(f *os.File) error { return os.Rename(f.Name(), f.Name()+".new") }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "image.raw")
			writeFile(t, name, "image")
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			before, err := settledID(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			if err := tc.change(f); err != nil {
				t.Fatal(err)
			}
			after, err := fileID(f)
			if err != nil {
				t.Fatal(err)
			}
			if unchanged := tc.name == "nothing" || tc.name == "read"; (before == after) != unchanged {
				t.Errorf("identities %+v and %+v", before, after)
			}
			if after.sameFile(before) != tc.same {
				t.Errorf("the same file: %t, want %t", after.sameFile(before), tc.same)
			}
		})
	}
}

// TestSameFileIsOneFile: what publishing leaves alone tells two files apart.
func TestSameFileIsOneFile(t *testing.T) {
	id := FileID{Dev: 1, Ino: 2, Size: 3, Mtime: 4, Ctime: 5}
	for _, tc := range []struct {
		other FileID
		same  bool
	}{
		{id, true},
		{FileID{9, 2, 3, 4, 5}, true}, // a pool that was mounted again
		{FileID{1, 2, 3, 4, 9}, true}, // a rename
		{FileID{1, 9, 3, 4, 5}, false},
		{FileID{1, 2, 9, 4, 5}, false},
		{FileID{1, 2, 3, 9, 5}, false},
	} {
		if id.sameFile(tc.other) != tc.same {
			t.Errorf("%+v: the same file: %t", tc.other, !tc.same)
		}
	}
}

// TestIdentityOfAnOldFileIsTakenAtOnce, that of a fresh one when the clock has
// moved, and of none if the user gives up.
func TestIdentityOfAnOldFileIsTakenAtOnce(t *testing.T) {
	name := filepath.Join(t.TempDir(), "image.raw")
	writeFile(t, name, "image")
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	if _, err := settledID(ctx, f); !errors.Is(err, enough) {
		t.Errorf("error %v of a fresh file, want the cause of the end", err)
	}
	time.Sleep(2 * clockTick)
	if _, err := settledID(ctx, f); err != nil {
		t.Errorf("of a file that is old enough: %v", err)
	}
}

// TestImagesAreRegularFiles: all else is refused at once, a pipe too, which
// would wait for its other end.
func TestImagesAreRegularFiles(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "image.raw"), "image")
	if err := os.Symlink("image.raw", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"image.raw", "link"} {
		f, err := openImage(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		f.Close()
	}
	for _, name := range []string{filepath.Join(dir, "pipe"), dir, "/dev/null"} {
		if _, err := openImage(name); fault.Of(err) != fault.Image {
			t.Errorf("%s: error %v, want one of the image", name, err)
		}
	}
	if _, err := openImage(filepath.Join(dir, "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v of a file that is not there", err)
	}
}
