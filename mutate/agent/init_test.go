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

// TestProgramsAreFoundByTheJobsPath, whatever that of init is: it has none where it had to
// start itself over.
func TestProgramsAreFoundByTheJobsPath(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a/tool", "b/tool"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", "")
	j := job{Argv: []string{"tool"}, Env: []string{"PATH=" + dir + "/a", "HOME=/root", "PATH=" + dir + "/b"}}
	cmd, err := j.command()
	if err != nil || cmd.Err != nil || cmd.Path != dir+"/b/tool" {
		t.Errorf("it is %s, %v, %v", cmd.Path, cmd.Err, err)
	}
}
