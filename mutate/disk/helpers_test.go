package disk_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
)

// open opens a file for the time of the test.
func open(t testing.TB, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// inspect finds out all that is in an image.
func inspect(t testing.TB, f *os.File) (*disk.Layout, error) {
	t.Helper()
	i, err := disk.Open(t.Context(), f, func(text string) { t.Log(text) })
	if err != nil {
		return nil, err
	}
	err = i.FindRoles()
	if closeErr := i.Close(); closeErr != nil {
		t.Error(closeErr)
	}
	return i.Layout, err
}

// clone gives a private copy of a layout's image.
func clone(t *testing.T, layout string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.raw")
	fixtures.Clone(t, fixtures.Image(t, layout), path)
	return path
}

// The ext4 filesystems of the layout two-roots, as debugfs and e2fsck take them.
const (
	firstRoot  = "?offset=1048576"
	secondRoot = "?offset=68157440"
)

// debugfs changes or reads an ext4 without the kernel. It goes on after an
// error and exits with 0, so what it says is looked at.
func debugfs(t *testing.T, device string, commands ...string) string {
	t.Helper()
	out := fixtures.Program(t, strings.Join(commands, "\n")+"\n", "debugfs", "-w", "-f", "-", device)
	for _, fault := range []string{"not found", "Unknown", "while ", "Usage", "Invalid"} {
		if strings.Contains(out, fault) {
			t.Fatalf("debugfs %s: %s", device, out)
		}
	}
	return out
}

// volume inspects nothing but the table, and gives the volume of a slot.
func volume(t *testing.T, f *os.File, slot int) disk.Volume {
	t.Helper()
	l, err := disk.List(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	v, ok := l.Slot(slot)
	if !ok {
		t.Fatalf("no slot %d in %+v", slot, l)
	}
	return v
}

// released fails the test if a loop device goes on naming the file. The
// kernel lets go a moment after the last user does.
func released(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
		if err != nil {
			t.Fatal(err)
		}
		held := ""
		for _, name := range names {
			b, _ := os.ReadFile(name) // detached since, if it fails
			if strings.HasPrefix(string(b), path) {
				held = name
			}
		}
		if held == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s still names %s", held, path)
		}
	}
}
