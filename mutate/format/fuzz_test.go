package format

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/fault"
)

// FuzzQcow2: whatever a file says, it gives an image or the reason why it gives none, and
// takes no more room than was asked for.
func FuzzQcow2(f *testing.F) {
	fixtures.Require(f, fixtures.Tools)
	dir := f.TempDir()
	rawImage(f, filepath.Join(dir, "raw"), 300_000)
	for _, script := range []string{
		"qemu-img convert -O qcow2 raw out", "qemu-img convert -c -O qcow2 -o cluster_size=4k raw out",
		"qemu-img convert -c -o compression_type=zstd,cluster_size=4k -O qcow2 raw out",
		"qemu-img convert -o extended_l2=on,cluster_size=16k -O qcow2 raw out",
		"qemu-img convert -O qcow2 -o cluster_size=512,compat=0.10 raw out",
		"qemu-img create -q -f qcow2 -u -b raw -F raw out 1M",
	} {
		fixtures.Program(f, "", "env", "-C", dir, "sh", "-ec", script)
		b, err := os.ReadFile(filepath.Join(dir, "out"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, append([]byte(magicQcow2), b[min(4, len(b)):]...), 0o600); err != nil {
			t.Fatal(err)
		}
		src, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		tooMuch := errors.New("too much")
		o := allow()
		o.Beside = dir
		o.Room = func(n int64) error {
			if n > 8<<20 {
				return tooMuch
			}
			return nil
		}
		i, err := Open(t.Context(), src, dir, o)
		if err != nil {
			if fault.Of(err) != fault.Image && !errors.Is(err, tooMuch) && !errors.Is(err, unix.EFBIG) {
				t.Errorf("Open = %v, of class %q", err, fault.Of(err))
			}
			return
		}
		if err := i.Close(src); err != nil {
			t.Error(err)
		}
	})
}
