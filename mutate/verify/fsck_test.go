package verify

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/reflink"
)

// TestCarveSharesVolumes of any length: an image's last partition often ends
// where the disk does, and not with a block.
func TestCarveSharesVolumes(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Reflink)
	dir := fixtures.ReflinkDir(t)
	content := bytes.Repeat([]byte("imgmut!\n"), 1<<20)
	path := filepath.Join(dir, "image.raw")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	image, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	for _, size := range []int64{4 << 20, 4<<20 + 512, 4<<20 - 512, 7<<20 - 512} {
		v := disk.Volume{Offset: 1 << 20, Size: size}
		file := filepath.Join(dir, "carved")
		if err := carve(t.Context(), file, image, v); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, content[v.Offset:v.Offset+size]) {
			t.Errorf("%d bytes: carved %d, %v, or others", size, len(got), err)
		}
		var own int64
		for e, err := range reflink.Extents(t.Context(), f) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Flags&reflink.ExtentShared == 0 {
				own += e.Length
			}
		}
		if own > 4096 {
			t.Errorf("%d bytes: %d of them are copied", size, own)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
}
