package disk

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
)

// TestFATCircle: a cluster that follows itself is found in all three kinds of
// FAT, before the library gets to follow it.
func TestFATCircle(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	for _, tc := range []struct {
		bits, size string
		entry      string // cluster 3's, as it must be to name itself
		at         int64  // of the entry in the FAT
	}{
		{"12", "4M", "\x03\x30\x00", 3 + 1}, // the high nibble of byte 4 and byte 5
		{"16", "16M", "\x03\x00", 6},
		{"32", "64M", "\x03\x00\x00\x00", 12},
	} {
		t.Run("FAT"+tc.bits, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "fat")
			script := "truncate -s " + tc.size + " $1 && mkfs.vfat -F " + tc.bits + " $1 && printf x | mcopy -i $1 - ::/file"
			if out, err := exec.Command("sh", "-euc", script, "sh", name).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			fi, _ := f.Stat()
			if err := checkFAT(f, fi.Size()); err != nil {
				t.Fatalf("a sound volume: %v", err)
			}
			b := make([]byte, 64)
			if _, err := f.ReadAt(b, 0); err != nil {
				t.Fatal(err)
			}
			reserved := int64(b[14]) | int64(b[15])<<8
			sector := int64(b[11]) | int64(b[12])<<8
			if tc.bits == "12" {
				tc.entry = "\x30\x00"
			}
			if _, err := f.WriteAt([]byte(tc.entry), reserved*sector+tc.at); err != nil {
				t.Fatal(err)
			}
			if err := checkFAT(f, fi.Size()); err == nil || !strings.Contains(err.Error(), "in a circle") {
				t.Errorf("checkFAT = %v", err)
			}
			v := Volume{Size: fi.Size(), FS: "vfat"}
			if _, err := v.Open(f, ReadOnly); err == nil {
				t.Error("it was opened")
			}
		})
	}
}

// FuzzCheckFAT: whatever is in a volume, it is judged, in bounded time and
// memory.
func FuzzCheckFAT(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 1024))
	f.Fuzz(func(t *testing.T, b []byte) {
		first := checkFAT(strings.NewReader(string(b)), int64(len(b)))
		if second := checkFAT(strings.NewReader(string(b)), int64(len(b))); (first == nil) != (second == nil) {
			t.Errorf("judged twice: %v, %v", first, second)
		}
	})
}
