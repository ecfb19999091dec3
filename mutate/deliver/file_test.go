package deliver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

// TestWhereAnOutputMayGo is asked before any work. The table's paths are below
// a directory that holds the recipe, its base, a few files and links.
func TestWhereAnOutputMayGo(t *testing.T) {
	w := newSource(t)
	dir := t.TempDir()
	for _, name := range []string{"recipe.yaml", "base.raw", "old.raw", "sub/other.raw"} {
		writeFile(t, filepath.Join(dir, name), name)
	}
	for link, to := range map[string]string{
		"to-old": "old.raw", "to-nothing": "nothing", "to-base": "base.raw", "to-sub": "sub",
		"to-store": w.Store.Dir(), "to-image": w.Store.Path(store.Images, "web", "raw"), "round": "round",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "base.raw"), filepath.Join(dir, "same-as-base.raw")); err != nil {
		t.Fatal(err)
	}
	w.publish(t, record.Image{Name: "web"})
	check := func(output string) error {
		return File{w.Source, output, map[string]string{
			"the recipe": filepath.Join(dir, "recipe.yaml"), "the base of the recipe": filepath.Join(dir, "base.raw"),
		}}.Check(t.Context(), "web")
	}
	for _, tc := range []struct {
		output string
		want   string // in the error, which is one of use; accepted if empty
	}{
		{"new.raw", ""},
		{"old.raw", ""},
		{"to-old", ""},
		{"to-nothing", ""},
		{"to-sub/new.raw", ""},
		{"sub/../new.raw", ""},
		{"none/new.raw", "no directory"},
		{"old.raw/new.raw", "no directory"},
		{"sub", "no regular file"},
		{"to-sub", "no regular file"},
		{".", "no regular file"},
		{"base.raw", "the base of the recipe"},
		{"to-base", "the base of the recipe"},
		{"same-as-base.raw", "the base of the recipe"},
		{"recipe.yaml", "the recipe"},
		{"to-store/new.raw", "in the store"},
		{"to-store/images/web.raw", "in the store"},
		{"to-image", "in the store"},
		{w.Store.Dir() + "/new.raw", "in the store"},
		{w.Store.Dir() + "-beside.raw", ""},
		{"/dev/null", "no regular file"},
		{"new.img", ""},
		{"new", ""},
		{"new.2024", ""},
		{"new.qcow2", "another format"},
		{"new.VMDK", "another format"},
		{"new.img.gz", "another format"},
		{"-", ""},
	} {
		output := tc.output
		if !filepath.IsAbs(output) {
			output = dir + "/" + output
		}
		err := check(output)
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s is refused: %v", tc.output, err)
		case tc.want != "" && (fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: error %v, want one that says %q", tc.output, err, tc.want)
		}
	}
	if err := check(dir + "/round"); err == nil {
		t.Error("a link to itself is accepted")
	}
	t.Chdir(dir)
	if err := check("base.raw"); fault.Of(err) != fault.Usage {
		t.Errorf("a relative path to the base: error %v", err)
	}
}

// TestStandardOutputIsNoFile: "-" is what other programs call standard output,
// and a file of that name would be a surprise.
func TestStandardOutputIsNoFile(t *testing.T) {
	w := newSource(t)
	t.Chdir(t.TempDir())
	err := File{Source: w.Source, Path: "-"}.Check(t.Context(), "web")
	if fault.Of(err) != fault.Usage || !strings.Contains(fault.Mend(err), "./-") {
		t.Errorf("error %v with hint %q", err, fault.Mend(err))
	}
	if err := (File{Source: w.Source, Path: "./-"}).Check(t.Context(), "web"); err != nil {
		t.Errorf("a file of that name, and it is meant: %v", err)
	}
}

// TestOutputOfAnotherFormat tells how a raw image becomes one.
func TestOutputOfAnotherFormat(t *testing.T) {
	for output, mend := range map[string]string{
		"/x/web.qcow2":  "write /x/web.raw, then: qemu-img convert -O qcow2 /x/web.raw /x/web.qcow2",
		"web.vhd":       "write web.raw, then: qemu-img convert -O vpc web.raw web.vhd",
		"web.raw.xz":    "write web.raw, and pack that with xz",
		"web.img.gz":    "write web.raw, and pack that with gzip",
		"dir.d/web.iso": "write dir.d/web.raw",
	} {
		if got := fault.Mend(checkFormat(output)); got != mend {
			t.Errorf("%s: hint %q, want %q", output, got, mend)
		}
	}
}

// TestOutputThroughAnotherUsersLink is refused where everybody can put one, as
// the kernel refuses it with fs.protected_symlinks, also at the second hop.
func TestOutputThroughAnotherUsersLink(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	w := newSource(t)
	dir := t.TempDir()
	tmp := filepath.Join(dir, "tmp")
	writeFile(t, filepath.Join(dir, "precious"), "root's")
	if err := errors.Join(os.Mkdir(tmp, 0o700), os.Chmod(tmp, 0o777|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{
		"tmp/theirs": "../precious", "tmp/ours": "../precious", "hop": "tmp/theirs", "tmp/new": "nothing",
	} {
		link = filepath.Join(dir, link)
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
		if name := filepath.Base(link); name == "theirs" || name == "new" {
			if err := os.Lchown(link, 65534, 65534); err != nil {
				t.Fatal(err)
			}
		}
	}
	for output, refused := range map[string]bool{"tmp/theirs": true, "tmp/new": true, "hop": true, "tmp/ours": false} {
		err := File{Source: w.Source, Path: filepath.Join(dir, output)}.Check(t.Context(), "web")
		if got := fault.Of(err) == fault.Usage; got != refused {
			t.Errorf("%s is refused: %t (%v)", output, got, err)
		}
	}
}

// TestOutputIsACopy of the image that has its name when it is whole.
func TestOutputIsACopy(t *testing.T) {
	w := newSource(t)
	w.publish(t, record.Image{Name: "web"})
	image := &record.Image{Name: "web"}
	for _, tc := range []struct {
		name   string
		before func(t *testing.T)
		target string // what is written, if not the output itself
		mode   os.FileMode
	}{
		{"where nothing is", func(*testing.T) {}, "out.raw", 0o644},
		{"over a file, which keeps its mode", func(t *testing.T) {
			writeFile(t, "out.raw", "old, and longer than what comes in its place")
			if err := os.Chmod("out.raw", 0o600); err != nil {
				t.Fatal(err)
			}
		}, "out.raw", 0o600},
		{"through a link, which stays", func(t *testing.T) {
			writeFile(t, "sub/real.raw", "old")
			if err := os.Symlink("sub/real.raw", "out.raw"); err != nil {
				t.Fatal(err)
			}
		}, "sub/real.raw", 0o644},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			tc.before(t)
			path, err := File{Source: w.Source, Path: "out.raw"}.Put(t.Context(), image)
			if err != nil {
				t.Fatal(err)
			}
			if !filepath.IsAbs(path) || filepath.Base(path) != "out.raw" {
				t.Errorf("the image is said to be %s", path)
			}
			fi, err := os.Lstat(tc.target)
			if err != nil {
				t.Fatal(err)
			}
			if fi.Mode() != tc.mode {
				t.Errorf("mode %s, want %s", fi.Mode(), tc.mode)
			}
			if b, err := os.ReadFile(path); string(b) != "disk of web" {
				t.Errorf("it is %q: %v", b, err)
			}
			nothingBeside(t, filepath.Dir(tc.target), filepath.Base(tc.target))
		})
	}
}

// TestFailedOutputLeavesWhatWasThere, and says where it failed.
func TestFailedOutputLeavesWhatWasThere(t *testing.T) {
	w := newSource(t)
	w.publish(t, record.Image{Name: "web"})
	image := &record.Image{Name: "web"}
	t.Chdir(t.TempDir())
	writeFile(t, "out.raw", "old")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := File{Source: w.Source, Path: "out.raw"}.Put(ctx, image)
	if err == nil || !strings.Contains(err.Error(), "out.raw") {
		t.Errorf("error %v of an output that was broken off", err)
	}
	if b, err := os.ReadFile("out.raw"); string(b) != "old" {
		t.Errorf("it is %q: %v", b, err)
	}
	nothingBeside(t, ".", "out.raw")
	if _, err := (File{Source: w.Source, Path: "gone/out.raw"}).Put(t.Context(), image); err == nil {
		t.Error("it was written where no directory is")
	}
}

// nothingBeside fails if a directory holds more than one file, and directories.
func nothingBeside(t *testing.T, dir, file string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() && e.Type() != os.ModeSymlink && e.Name() != file {
			t.Errorf("%s is left beside %s", e.Name(), file)
		}
	}
}

// TestHintOfAFullPlace names the place, because the store may have room.
func TestHintOfAFullPlace(t *testing.T) {
	if hint := fault.Mend(placeError("/media/stick/web.raw", syscall.ENOSPC)); !strings.Contains(hint, "/media/stick") {
		t.Errorf("hint %q", hint)
	}
	if hint := fault.Mend(placeError("/media/stick/web.raw", syscall.EIO)); hint != "" {
		t.Errorf("hint %q, and it is not full", hint)
	}
}
