package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// reader takes what the agent sends, and gives up on what has no end.
type reader struct {
	got   int
	onGot func()
}

func (r *reader) Write(b []byte) (int, error) {
	if r.got += len(b); r.got > 2*maxRead {
		return 0, errors.New("it has no end")
	}
	if r.onGot != nil {
		r.onGot()
	}
	return len(b), nil
}

// TestReadHasAnEnd: whatever the image has in place of a file, the agent does not
// read for ever.
func TestReadHasAnEnd(t *testing.T) {
	dir := t.TempDir()
	link := func(name, target string) string {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	grows, err := os.Create(filepath.Join(dir, "grows"))
	if err != nil {
		t.Fatal(err)
	}
	defer grows.Close()
	size := int64(MaxData)
	grow := func() {
		size += 2 * MaxData
		if err := grows.Truncate(size); err != nil {
			t.Error(err)
		}
	}
	grow()
	for _, tc := range []struct {
		name, file, want string
		onGot            func()
	}{
		{"endless file of proc", link("pagemap", "/proc/self/pagemap"), "of the kernel", nil},
		{"file of proc", link("mounts", "/proc/self/mounts"), "of the kernel", nil},
		{"file of sysfs", link("seqnum", "/sys/kernel/uevent_seqnum"), "of the kernel", nil},
		{"device", link("zero", "/dev/zero"), "not a regular file", nil},
		{"grows while it is read", grows.Name(), "more than", grow},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := server{out: &reader{onGot: tc.onGot}}
			if err := s.read(tc.file); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("read = %v, want %s", err, tc.want)
			}
		})
	}
}

// TestReadRegularLimit: a file is read whole or not at all.
func TestReadRegularLimit(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	put(t, name, "12345678")
	for limit, fits := range map[int64]bool{7: false, 8: true, 9: true} {
		if b, err := readRegular(name, limit); (err == nil) != fits || fits && string(b) != "12345678" {
			t.Errorf("limit %d: %q, %v", limit, b, err)
		}
	}
}
