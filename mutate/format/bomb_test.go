package format

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imgmut/imgmut/fixtures"
)

// TestDamagedXZ: what xz -t refuses is no image.
func TestDamagedXZ(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	dir := t.TempDir()
	rawImage(t, filepath.Join(dir, "raw"), 1<<20)
	fixtures.Program(t, "", "env", "-C", dir, "sh", "-ec", "xz -1c raw > out")
	b, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/4] ^= 1 // in noise, which LZMA2 keeps as it is
	if err := os.WriteFile(filepath.Join(dir, "out"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, filepath.Join(dir, "out"), allow()); err == nil {
		t.Error("it was taken, and is another image")
	}
}

// TestBombsHearTheEnd: whatever unpacks to much ends with its context.
func TestBombsHearTheEnd(t *testing.T) {
	block := []byte{0, 0, 0x10, 0} // 128 KiB of zeros: RLE, not the last
	v := 128<<10<<3 | 1<<1
	block[0], block[1], block[2] = byte(v), byte(v>>8), byte(v>>16)
	zstd := append([]byte("\x28\xb5\x2f\xfd\x00\x38"), bytes.Repeat(block, 60_000)...)
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3, 1<<3 | 1<<1 | 1, 0, 0, 0} // a window of 128 MiB
	for name, b := range map[string][]byte{
		"zstd of zeros":  zstd,
		"zstd of frames": bytes.Repeat(frame, 600),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			began := time.Now()
			_, err = Open(ctx, f, t.TempDir(), allow())
			if took := time.Since(began); took > time.Second && errors.Is(err, context.DeadlineExceeded) || err == nil {
				t.Errorf("it took %v: %v", took, err)
			}
		})
	}
}
