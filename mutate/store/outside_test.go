package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/store"
)

// TestSweepRemovesNothingElsewhere: whatever a link in the directory of a dead
// run says, what the run did not make stays, and the sweep goes on.
func TestSweepRemovesNothingElsewhere(t *testing.T) {
	const text = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for name, forge := range map[string]func(t *testing.T, dir string) (link, victim string){
		"any file": func(t *testing.T, dir string) (string, string) {
			return "outside-x", filepath.Join(dir, "victim")
		},
		"any file of the right directory": func(t *testing.T, dir string) (string, string) {
			return linkTo(t, dir, text), filepath.Join(dir, "victim")
		},
		"another run's file": func(t *testing.T, dir string) (string, string) {
			return linkTo(t, dir, text), filepath.Join(dir, ".imgmut-ZZZZZZZZZZZZZZZZZZZZZZZZZZ.raw")
		},
		"no text": func(t *testing.T, dir string) (string, string) {
			return linkTo(t, dir, ""), filepath.Join(dir, ".imgmut-"+text)
		},
		"a file that is not called so": func(t *testing.T, dir string) (string, string) {
			return linkTo(t, dir, text), filepath.Join(dir, "victim-"+text)
		},
		"another directory": func(t *testing.T, dir string) (string, string) {
			return linkTo(t, t.TempDir(), text), filepath.Join(dir, ".#imgmut-"+text)
		},
		"no directory said": func(t *testing.T, dir string) (string, string) {
			return "outside-" + text, filepath.Join(dir, ".#imgmut-"+text)
		},
		"a link at the right place": func(t *testing.T, dir string) (string, string) {
			victim := filepath.Join(dir, ".#imgmut-"+text)
			do(t, os.Symlink("elsewhere", victim))
			return linkTo(t, dir, text), victim
		},
		"a directory at the right place": func(t *testing.T, dir string) (string, string) {
			victim := filepath.Join(dir, ".#imgmut-"+text)
			do(t, os.Mkdir(victim, 0o755))
			return linkTo(t, dir, text), victim
		},
		"another user's file": func(t *testing.T, dir string) (string, string) {
			fixtures.Require(t, fixtures.Root)
			victim := filepath.Join(dir, ".#imgmut-"+text)
			do(t, os.WriteFile(victim, nil, 0o600))
			do(t, os.Chown(victim, nobody, nobody))
			return linkTo(t, dir, text), victim
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := open(t), t.TempDir()
			link, victim := forge(t, dir)
			if !exists(victim) {
				do(t, os.WriteFile(victim, []byte("precious"), 0o600))
			}
			run := filepath.Join(s.Root(), "tmp", "run-1")
			do(t, os.Mkdir(run, 0o700))
			do(t, os.Symlink(victim, filepath.Join(run, link)))
			do(t, s.Sweep(t.Context()))
			if !exists(victim) {
				t.Errorf("Sweep removed %s", victim)
			}
			if exists(run) {
				t.Error("Sweep left the run")
			}
		})
	}
}

// linkTo is what a run calls its link to a file in dir.
func linkTo(t *testing.T, dir, text string) string {
	t.Helper()
	fi, err := os.Stat(dir)
	do(t, err)
	st := fi.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("outside-%x-%x-%s", st.Dev, st.Ino, text)
}

// TestSweepAgainstTheOwnerOfTheWay: the owner of a directory on the way to what
// a killed run made puts another one, by a link, in place of it, again and again.
// There a file of the same name is to be removed by root in their stead.
func TestSweepAgainstTheOwnerOfTheWay(t *testing.T) {
	s, way, victim := open(t), t.TempDir(), t.TempDir()
	out, link := filepath.Join(way, "out"), filepath.Join(way, "link")
	do(t, os.Mkdir(out, 0o755))
	const files = 100
	var dirs []string
	for range files {
		dirs = append(dirs, out)
	}
	dead := start(t, "run", s.Root(), dirs...)
	dead.kill()
	for _, made := range dead.said[1:] {
		do(t, os.WriteFile(filepath.Join(victim, filepath.Base(made)), []byte("precious"), 0o600))
	}
	do(t, os.Symlink(victim, link))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, out, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	}()
	err := s.Sweep(t.Context())
	close(stop)
	<-stopped
	do(t, err)
	left, err := os.ReadDir(victim)
	do(t, err)
	if len(left) != files || len(dead.said) != files+1 {
		t.Errorf("of %d files of somebody else, in a directory that no run worked in, %d are left", files, len(left))
	}
}

// TestCloseKnowsItsFiles: what a living run made it removes, wherever the
// directory is by then, and it delivers into the very directory too.
func TestCloseKnowsItsFiles(t *testing.T) {
	s, way := open(t), t.TempDir()
	out, moved := filepath.Join(way, "out"), filepath.Join(way, "moved")
	do(t, os.Mkdir(out, 0o755))
	run := begin(t, s)
	dropped, err := run.Outside(out, ".#imgmut-*")
	do(t, err)
	defer dropped.Close()
	delivered, err := run.Outside(out, ".imgmut-*.raw")
	do(t, err)
	do(t, os.Rename(out, moved))
	do(t, os.Mkdir(out, 0o755))
	do(t, run.Deliver(delivered, filepath.Join(out, "image.raw")))
	do(t, run.Close())
	if left, _ := filepath.Glob(moved + "/.*imgmut*"); len(left) > 0 {
		t.Errorf("left %q", left)
	}
	if !exists(moved+"/image.raw") || exists(out+"/image.raw") {
		t.Error("delivered to another directory")
	}
}

// TestOutsideIsFoundAgain: a file whose name says nothing is not made.
func TestOutsideIsFoundAgain(t *testing.T) {
	run, dir := begin(t, open(t)), t.TempDir()
	for _, pattern := range []string{"image-*", ".imgmut-x", "*.imgmut-"} {
		if _, err := run.Outside(dir, pattern); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", pattern, err)
		}
	}
	do(t, os.Mkdir(filepath.Join(dir, "fifo's"), 0o755))
	do(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	if _, err := run.Outside(filepath.Join(dir, "pipe"), ".imgmut-*"); err == nil {
		t.Error("made a file in a pipe")
	}
}

// TestSweepOfOddThings in the store: what is no run, object or lock stays, is
// never followed, and keeps nothing from going on.
func TestSweepOfOddThings(t *testing.T) {
	s, elsewhere := open(t), t.TempDir()
	victim := filepath.Join(elsewhere, "victim.raw")
	do(t, os.WriteFile(victim, []byte("precious"), 0o600))
	tmp := filepath.Join(s.Root(), "tmp")
	do(t, os.WriteFile(filepath.Join(tmp, "run-file"), nil, 0o600))
	do(t, unix.Mkfifo(filepath.Join(tmp, "run-pipe"), 0o600))
	do(t, os.Symlink(elsewhere, filepath.Join(tmp, "run-link")))
	dead := filepath.Join(tmp, "run-dead")
	do(t, os.Mkdir(dead, 0o700))
	do(t, unix.Mkfifo(filepath.Join(dead, "pipe.raw"), 0o600))
	do(t, os.Symlink(victim, filepath.Join(dead, "link.raw")))
	do(t, os.Symlink(elsewhere, filepath.Join(dead, "directory")))
	do(t, os.WriteFile(filepath.Join(dead, "outside-no-link"), nil, 0o600))
	for _, k := range []store.Kind{store.Bases, store.Layers, store.Images} {
		do(t, os.MkdirAll(s.Path(k, "odd", "raw")+"/full", 0o700))
		do(t, os.WriteFile(s.Path(k, "orphan", "raw"), nil, 0o600)) // comes behind it
	}
	do(t, os.MkdirAll(filepath.Join(s.Root(), "locks", "name-odd", "full"), 0o700))
	do(t, os.MkdirAll(s.Kept("odd")+"/full", 0o700))
	do(t, os.Symlink(victim, s.Kept("link")))
	do(t, os.WriteFile(s.Kept("web"), nil, 0o600))

	do(t, s.Sweep(t.Context()))
	do(t, s.ClearLocks())
	kept, err := s.DropKept(false)
	do(t, err)
	if !slices.Equal(kept, []string{s.Kept("link"), s.Kept("web")}) || exists(kept[0]) || exists(kept[1]) {
		t.Errorf("DropKept = %q", kept)
	}
	for _, k := range []store.Kind{store.Bases, store.Layers, store.Images} {
		if exists(s.Path(k, "orphan", "raw")) {
			t.Errorf("Sweep left a disk without a record in %s", k)
		}
	}
	if exists(dead) || !exists(victim) {
		t.Error("Sweep left a dead run, or took what a link led to")
	}
	reopen(t, s.Root())
}
