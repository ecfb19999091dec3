package refs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/mutate/refs"
)

// TestScanLinks: a link to a directory is followed, each once, unless it leads to all that
// a system has; and there is an end of what is looked into for links.
func TestScanLinks(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) error {
		file := filepath.Join(dir, name)
		return errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644))
	}
	link := func(target, name string) error {
		file := filepath.Join(dir, name)
		return errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.Symlink(target, file))
	}
	text := "PARTUUID=" + gone
	err := errors.Join(write("opt/udev/rules.d/60-x.rules", text), link("../../opt/udev/rules.d", "etc/udev/rules.d"),
		link("../../opt/udev", "etc/udev/again"), link("loop", "opt/udev/rules.d/loop"), link("..", "opt/udev/rules.d/up"),
		write("usr/bin/x", text), write("var/lib/y", text), link("..", "etc/root"), link("../usr", "etc/usr"),
		link("../var/lib", "etc/lib"),
		link("../..", "etc/systemd/all"))
	if err != nil {
		t.Fatal(err)
	}
	r := scan(t, refs.Files{FS: os.DirFS(dir)}, whatIsGone)
	want := []refs.Leftover{{File: "etc/udev/again/rules.d/60-x.rules", ID: gone, Tag: "PARTUUID"}}
	if diff := cmp.Diff(want, r.Found); diff != "" || len(r.Unread) > 0 {
		t.Errorf("(-want +got):\n%s, %v", diff, r.Unread)
	}
	if err := link("../srv/many", "etc/many"); err != nil {
		t.Fatal(err)
	}
	if err := write("srv/many/x", ""); err != nil {
		t.Fatal(err)
	}
	for n := range 1<<14 + 10 {
		if err := os.Link(filepath.Join(dir, "srv/many/x"), filepath.Join(dir, "srv/many", fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
	}
	r = scan(t, refs.Files{FS: os.DirFS(dir)}, whatIsGone)
	if len(r.Unread) != 1 || r.Unread[0] != (refs.Unread{File: "etc/many", Why: "links lead to directories with more than 16384 files"}) {
		t.Errorf("a link to many files: unread are %v", r.Unread)
	}
}
