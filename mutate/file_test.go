package mutate

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
)

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
