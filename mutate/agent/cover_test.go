package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
)

// imageDir is a directory on a lasting filesystem that no command has anew.
func imageDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "imgmut-cover-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// describe lists all there is below a directory, with everything that is to be
// known of each file.
func describe(t *testing.T, dir string) string {
	t.Helper()
	var s strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name := strings.TrimPrefix(path, dir)
		fmt.Fprintf(&s, "%s inode %d mode %o %d:%d links %d at %d", name, st.Ino, st.Mode, st.Uid, st.Gid, st.Nlink,
			st.Mtim.Nano())
		for _, attr := range []string{"user.note", "security.capability"} {
			value := make([]byte, 100)
			if n, err := unix.Lgetxattr(path, attr, value); err == nil {
				fmt.Fprintf(&s, " %s=%x", attr, value[:n])
			}
		}
		switch d.Type() {
		case fs.ModeSymlink:
			link, _ := os.Readlink(path)
			fmt.Fprintf(&s, " to %s", link)
		case 0:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&s, ": %q", b)
		}
		s.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s.String()
}

// TestCoverLeavesNoTrace: what a command leaves alone is as if it had never been
// covered, in all that can be seen of it.
func TestCoverLeavesNoTrace(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	old := time.Date(2020, 1, 2, 3, 4, 5, 678, time.UTC)
	file := func(d string) error { return os.WriteFile(d+"/file", []byte("the image's own"), 0o640) }
	for _, tc := range []struct {
		name string
		make func(d string) error // what is in the image
		path string
	}{
		{"a file", file, "file"},
		{"an empty file", func(d string) error { return os.WriteFile(d+"/file", nil, 0o600) }, "file"},
		{"of another owner, with attributes", func(d string) error {
			caps := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
			return errors.Join(file(d), os.Chown(d+"/file", 12, 34), unix.Lsetxattr(d+"/file", "user.note", []byte("x"), 0),
				unix.Lsetxattr(d+"/file", "security.capability", caps, 0))
		}, "file"},
		{"set-user-ID", func(d string) error { return errors.Join(file(d), unix.Chmod(d+"/file", 0o4711)) }, "file"},
		{"with two names", func(d string) error { return errors.Join(file(d), os.Link(d+"/file", d+"/other")) }, "file"},
		{"behind links", func(d string) error {
			return errors.Join(file(d), os.Symlink("second", d+"/first"), os.Symlink(d+"/file", d+"/second"))
		}, "first"},
		{"behind a link of a directory", func(d string) error {
			return errors.Join(os.MkdirAll(d+"/a/b", 0o755), os.Symlink("a/b", d+"/short"),
				os.WriteFile(d+"/a/file", []byte("x"), 0o644), os.Symlink("../file", d+"/a/b/up"))
		}, "short/up"},
		{"missing", nil, "file"},
		{"missing with its directories", nil, "a/b/file"},
		{"at the end of a dangling chain", func(d string) error {
			return errors.Join(os.Symlink("second", d+"/first"), os.Symlink(d+"/sub/stub", d+"/second"))
		}, "first"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := imageDir(t)
			if tc.make != nil {
				if err := tc.make(dir); err != nil {
					t.Fatal(err)
				}
			}
			filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error {
				if d.Type() != fs.ModeSymlink {
					return os.Chtimes(path, old, old)
				}
				return nil
			})
			before := describe(t, dir)
			var put covering
			var j job
			if err := put.cover(Cover{Path: dir + "/" + tc.path, Content: "the cover's\n", Mode: 0o755}, &j); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(dir + "/" + tc.path)
			if fi, _ := os.Stat(dir + "/" + tc.path); err != nil || string(b) != "the cover's\n" || fi.Mode().Perm() != 0o755 {
				t.Errorf("the command reads %q, %v of %v", b, err, fi)
			}
			if err := put.restore(); err != nil {
				t.Error(err)
			}
			if after := describe(t, dir); after != before {
				t.Errorf("before:\n%safter:\n%s", before, after)
			}
		})
	}
}

// TestCoverKeepsWhatTheCommandDid: whatever a command does to a covered file is in
// the image.
func TestCoverKeepsWhatTheCommandDid(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	const cover = "nameserver 192.0.2.53\n"
	writeFile := func(name, text string) func(d string) error {
		return func(d string) error { return os.WriteFile(d+"/"+name, []byte(text), 0o644) }
	}
	for _, tc := range []struct {
		name    string
		image   string // content; none if empty
		command func(d string) error
		want    string // content, or " -> " and the target of a link; missing if empty
	}{
		{"written", "old", writeFile("file", "new"), "new"},
		{"written where there was none", "", writeFile("file", "new"), "new"},
		{"emptied", "old", writeFile("file", ""), "<empty>"},
		{"appended to", "old", func(d string) error {
			f, err := os.OpenFile(d+"/file", os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("options edns0\n")
			return errors.Join(err, f.Close())
		}, cover + "options edns0\n"},
		{"the same size and time", "old", func(d string) error {
			fi, err := os.Stat(d + "/file")
			same := strings.Replace(cover, "53", "99", 1)
			return errors.Join(err, os.WriteFile(d+"/file", []byte(same), 0o644),
				os.Chtimes(d+"/file", fi.ModTime(), fi.ModTime()))
		}, strings.Replace(cover, "53", "99", 1)},
		{"written with the cover's own content", "old", writeFile("file", cover), "old"},
		{"replaced by a file", "old", func(d string) error {
			return errors.Join(writeFile("file.new", cover)(d), os.Rename(d+"/file.new", d+"/file"))
		}, cover},
		{"replaced by a link", "old", func(d string) error {
			return errors.Join(os.Remove(d+"/file"), os.Symlink("../run/stub", d+"/file"))
		}, " -> ../run/stub"},
		{"replaced by a link where there was none", "", func(d string) error {
			return errors.Join(os.Remove(d+"/file"), os.Symlink("../run/stub", d+"/file"))
		}, " -> ../run/stub"},
		{"removed", "old", func(d string) error { return os.Remove(d + "/file") }, ""},
		{"removed where there was none", "", func(d string) error { return os.Remove(d + "/file") }, ""},
		{"its directory removed", "", func(d string) error { return os.RemoveAll(d) }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := imageDir(t) + "/etc"
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if tc.image != "" {
				put(t, dir+"/file", tc.image)
			}
			var f covering
			if err := f.cover(Cover{Path: dir + "/file", Content: cover, Mode: 0o644}, new(job)); err != nil {
				t.Fatal(err)
			}
			if err := tc.command(dir); err != nil {
				t.Fatal(err)
			}
			if err := f.restore(); err != nil {
				t.Error(err)
			}
			got := ""
			if link, err := os.Readlink(dir + "/file"); err == nil {
				got = " -> " + link
			} else if b, err := os.ReadFile(dir + "/file"); err == nil {
				if got = string(b); got == "" {
					got = "<empty>"
				}
			}
			if got != tc.want {
				t.Errorf("left is %q, want %q", got, tc.want)
			}
		})
	}
}

// TestCoverFollowsTheFile: what a cover says is not in the image by any name that
// a command gave the file.
func TestCoverFollowsTheFile(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	move := func(d string) error { return os.Rename(d+"/file", d+"/other") }
	link := func(d string) error { return os.Link(d+"/file", d+"/other") }
	for _, tc := range []struct {
		name    string
		image   string // content; none if empty
		command func(d string) error
		want    map[string]string // content of all there is
	}{
		{"moved", "old", move, map[string]string{"other": "old"}},
		{"moved, with another in its place", "old", func(d string) error {
			return errors.Join(move(d), os.WriteFile(d+"/file", []byte("new"), 0o644))
		}, map[string]string{"file": "new", "other": "old"}},
		{"moved and made unreadable", "old", func(d string) error {
			return errors.Join(move(d), os.Chmod(d+"/other", 0), os.Chown(d+"/other", 12, 34))
		}, map[string]string{"other": "old"}},
		{"moved and written", "old", func(d string) error {
			return errors.Join(move(d), os.WriteFile(d+"/other", []byte("new"), 0o644))
		}, map[string]string{"other": "new"}},
		{"linked", "old", link, map[string]string{"file": "old", "other": "old"}},
		{"linked and removed", "old", func(d string) error {
			return errors.Join(link(d), os.Remove(d+"/file"))
		}, map[string]string{"other": "old"}},
		{"moved where there was none", "", move, map[string]string{"other": ""}},
		{"linked where there was none", "", link, map[string]string{"file": "", "other": ""}},
		{"written elsewhere", "old", func(d string) error {
			return os.WriteFile(d+"/other", []byte("the machine's"), 0o644) // a copy is the command's
		}, map[string]string{"file": "old", "other": "the machine's"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := imageDir(t)
			if tc.image != "" {
				put(t, dir+"/file", tc.image)
			}
			var f covering
			err := f.cover(Cover{Path: dir + "/file", Content: "the machine's", Mode: 0o644}, new(job))
			if err := errors.Join(err, tc.command(dir), f.restore()); err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			names, _ := filepath.Glob(dir + "/*")
			for _, name := range names {
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				got[filepath.Base(name)] = string(b)
			}
			if !maps.Equal(got, tc.want) {
				t.Errorf("left is %q, want %q", got, tc.want)
			}
		})
	}
}

// TestCoverOfAProgramToCome: a file is there for a program that the command installs, whose
// directories stay then, without the file. Where nobody can write, it is not needed.
func TestCoverOfAProgramToCome(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	for name, tc := range map[string]struct {
		had, installs bool // the program
		want          string
	}{
		"it does not come": {false, false, ""},
		"it comes":         {false, true, "/etc\n/etc/tool.d\n"},
		"it is there":      {true, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := imageDir(t)
			program := func() error { return os.WriteFile(dir+"/tool", nil, 0o755) }
			if tc.had {
				if err := program(); err != nil {
					t.Fatal(err)
				}
			}
			var f covering
			err := f.cover(Cover{Path: dir + "/etc/tool.d/zzz", Content: "x", Mode: 0o644, Reader: dir + "/tool"}, new(job))
			if b, e := os.ReadFile(dir + "/etc/tool.d/zzz"); string(b) != "x" {
				t.Errorf("the program reads %q, %v", b, e)
			}
			if tc.installs {
				err = errors.Join(err, program())
			}
			if err := errors.Join(err, f.restore()); err != nil {
				t.Fatal(err)
			}
			left, err := exec.Command("sh", "-c", `cd "$1"; find . -path './etc*' | sed 's/^.//' | sort`, "sh", dir).Output()
			if string(left) != tc.want || err != nil {
				t.Errorf("left is %q, %v, want %q", left, err, tc.want)
			}
		})
	}
	dir := imageDir(t)
	put(t, dir+"/etc", "no directory")
	var f covering
	if err := errors.Join(f.cover(Cover{Path: dir + "/etc/x/y", Reader: "/none"}, new(job)), f.restore()); err != nil {
		t.Error(err)
	}
}

// TestCoverCanBeExecuted: a covered program runs.
func TestCoverCanBeExecuted(t *testing.T) {
	for name, image := range map[string]string{"covered": "#!/bin/false\n", "new": ""} {
		t.Run(name, func(t *testing.T) {
			program := imageDir(t) + "/program"
			if image != "" {
				put(t, program, image)
			}
			var f covering
			err := f.cover(Cover{Path: program, Content: "#!/bin/sh\n", Mode: 0o755}, new(job))
			if err := errors.Join(err, exec.Command(program).Run(), f.restore()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCoverKeepsMode: a mode that the command set stays, with the image's content.
func TestCoverKeepsMode(t *testing.T) {
	dir := imageDir(t)
	put(t, dir+"/file", "old")
	var f covering
	err := f.cover(Cover{Path: dir + "/file", Content: "x", Mode: 0o644}, new(job))
	if err := errors.Join(err, os.Chmod(dir+"/file", 0o600), f.restore()); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(dir + "/file")
	if fi, err := os.Stat(dir + "/file"); err != nil || fi.Mode().Perm() != 0o600 || string(b) != "old" {
		t.Errorf("left is %q, %v, %v", b, fi, err)
	}
}

// TestCoverElsewhere: what is no part of the image is made by the init of the
// command, and what nobody can change is covered by a mount.
func TestCoverElsewhere(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	dir := imageDir(t)
	put(t, dir+"/fixed", "old")
	if err := os.Symlink("/run/imgmut-none/stub", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	flags := func(set int) {
		t.Helper()
		f, err := os.Open(dir + "/fixed")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, set); err != nil {
			t.Fatal(err)
		}
	}
	flags(unix.STATX_ATTR_IMMUTABLE)
	defer flags(0)
	before := describe(t, dir)
	var f covering
	var j job
	for _, name := range []string{"link", "fixed"} {
		if err := f.cover(Cover{Path: dir + "/" + name, Content: "x", Mode: 0o644}, &j); err != nil {
			t.Fatal(err)
		}
	}
	if len(j.Files) != 1 || j.Files[0].Path != "/run/imgmut-none/stub" ||
		len(j.Binds) != 1 || j.Binds[0].Path != dir+"/fixed" {
		t.Errorf("the init makes %v, mounts %v", j.Files, j.Binds)
	}
	if err := f.restore(); err != nil {
		t.Error(err)
	}
	if after := describe(t, dir); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}

// TestCoverRefused: what cannot be covered is an error that leaves no trace, also
// of a cover before it.
func TestCoverRefused(t *testing.T) {
	dir := imageDir(t)
	put(t, dir+"/file", "x")
	for _, err := range []error{
		os.Symlink("circle", dir+"/circle"), os.Symlink("/dev/null", dir+"/device"), os.Mkdir(dir+"/directory", 0o755),
		unix.Mkfifo(dir+"/pipe", 0o644), os.WriteFile(dir+"/large", make([]byte, maxCovered+1), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for bad, want := range map[string]string{
		"circle": syscall.ELOOP.Error(), "file/below": syscall.ENOTDIR.Error(), "device": "not part of the image",
		"directory": "not a regular file", "pipe": "not a regular file", "large": "bytes",
	} {
		var f covering
		if err := f.cover(Cover{Path: dir + "/new/first", Mode: 0o644}, new(job)); err != nil {
			t.Fatal(err)
		}
		err := f.cover(Cover{Path: dir + "/" + bad}, new(job))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", bad, err, want)
		}
		if err := f.restore(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(dir + "/new"); err == nil {
			t.Errorf("%s: new is left", bad)
		}
	}
}
