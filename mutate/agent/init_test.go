package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInTheWay: a program that cannot be found because of something else than that it is
// not there is told of.
func TestInTheWay(t *testing.T) {
	dir := t.TempDir()
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+filepath.Join(dir, "none"))
	if err := inTheWay("tool"); err != nil {
		t.Errorf("nothing is there: %v", err)
	}
	t.Setenv("PATH", loop+":"+dir)
	if err := inTheWay("tool"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a directory that cannot be read: %v", err)
	}
	if err := inTheWay("/bin/none"); err != nil {
		t.Errorf("a path: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "text"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if err := inTheWay("text"); !errors.Is(err, unix.EACCES) {
		t.Errorf("no program: %v", err)
	}
}
