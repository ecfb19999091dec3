package content_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/content"
)

// TestAChangeOfAFileShows without reading it, also where the change comes right
// after the identity was taken and leaves the size as it is.
func TestAChangeOfAFileShows(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(f *os.File) error
		same   bool // to SameFile, which passes over what publishing changes
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
			if err := os.WriteFile(name, []byte("image"), 0o644); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			before, err := content.SettledID(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			if err := tc.change(f); err != nil {
				t.Fatal(err)
			}
			after, err := content.IDOf(f)
			if err != nil {
				t.Fatal(err)
			}
			if unchanged := tc.name == "nothing" || tc.name == "read"; (before == after) != unchanged {
				t.Errorf("identities %+v and %+v", before, after)
			}
			if after.SameFile(before) != tc.same {
				t.Errorf("the same file: %t, want %t", after.SameFile(before), tc.same)
			}
		})
	}
}

// TestSameFileIsOneFile: what publishing leaves alone tells two files apart.
func TestSameFileIsOneFile(t *testing.T) {
	id := content.FileID{Dev: 1, Ino: 2, Size: 3, Mtime: 4, Ctime: 5}
	for _, tc := range []struct {
		other content.FileID
		same  bool
	}{
		{id, true},
		{content.FileID{Dev: 9, Ino: 2, Size: 3, Mtime: 4, Ctime: 5}, true}, // a pool that was mounted again
		{content.FileID{Dev: 1, Ino: 2, Size: 3, Mtime: 4, Ctime: 9}, true}, // a rename
		{content.FileID{Dev: 1, Ino: 9, Size: 3, Mtime: 4, Ctime: 5}, false},
		{content.FileID{Dev: 1, Ino: 2, Size: 9, Mtime: 4, Ctime: 5}, false},
		{content.FileID{Dev: 1, Ino: 2, Size: 3, Mtime: 9, Ctime: 5}, false},
	} {
		if id.SameFile(tc.other) != tc.same {
			t.Errorf("%+v: the same file: %t", tc.other, !tc.same)
		}
	}
}

// TestIdentityOfAnOldFileIsTakenAtOnce, that of a fresh one when the clock has
// moved, and of none if the user gives up.
func TestIdentityOfAnOldFileIsTakenAtOnce(t *testing.T) {
	name := filepath.Join(t.TempDir(), "image.raw")
	if err := os.WriteFile(name, []byte("image"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	if _, err := content.SettledID(ctx, f); !errors.Is(err, enough) {
		t.Errorf("error %v of a fresh file, want the cause of the end", err)
	}
	time.Sleep(40 * time.Millisecond)
	for range 20 { // by chance it would go well half of the time
		if _, err := content.SettledID(ctx, f); err != nil {
			t.Fatalf("of a file that is old enough: %v", err)
		}
	}
}
