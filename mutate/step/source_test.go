package step_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/step"
)

// digests gives the digest of each file by its path.
func digests(t *testing.T, src *step.Source, froms ...step.From) map[string]string {
	t.Helper()
	inputs, err := src.Digest(t.Context(), froms)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, in := range inputs {
		m[in.Path] = in.Digest
	}
	return m
}

func froms(owner, mode bool) []step.From {
	return []step.From{{Path: "one.conf", KeepOwner: owner, KeepMode: mode},
		{Path: "tree", KeepOwner: owner, KeepMode: mode}}
}

func TestDigest(t *testing.T) {
	const tool = "tree/sub/tool"
	for _, tc := range []struct {
		name   string
		change func(dir string) error
		path   string // whose digest changes; none if empty
		kept   string // the same if owner and mode are kept
	}{
		{"bytes", func(d string) error { return os.WriteFile(d+"/one.conf", []byte("two\n"), 0) }, "one.conf", "one.conf"},
		{"length", func(d string) error { return os.Truncate(d+"/one.conf", 5) }, "one.conf", "one.conf"},
		{"umask", func(d string) error {
			return errors.Join(os.Chmod(d+"/one.conf", 0o664), os.Chmod(d+"/one.conf", 0o600))
		}, "", "one.conf"},
		{"executable", func(d string) error { return os.Chmod(d+"/one.conf", 0o755) }, "one.conf", "one.conf"},
		{"nobody may write", func(d string) error { return os.Chmod(d+"/one.conf", 0o440) }, "one.conf", "one.conf"},
		{"set-user-ID of another", func(d string) error { return os.Chmod(d+"/"+tool, 0o755) }, "", tool},
		{"set-user-ID of root", func(d string) error { return os.Chmod(d+"/one.conf", 0o755|fs.ModeSetuid) }, "one.conf",
			"one.conf"},
		{"mode of a directory", func(d string) error { return os.Chmod(d+"/tree/sub", 0o755) }, "", "tree/sub"},
		{"owner", func(d string) error { return os.Chown(d+"/one.conf", 1, 0) }, "", "one.conf"},
		{"group", func(d string) error { return os.Chown(d+"/one.conf", 0, 1) }, "", "one.conf"},
		{"link target", func(d string) error {
			return errors.Join(os.Remove(d+"/tree/link"), os.Symlink("../elsewhere", d+"/tree/link"))
		}, "tree/link", "tree/link"},
		{"attribute", func(d string) error { return unix.Lsetxattr(d+"/"+tool, "user.a=b", []byte("y"), 0) }, tool, tool},
		{"new attribute", func(d string) error { return unix.Lsetxattr(d+"/one.conf", "user.x", nil, 0) }, "one.conf",
			"one.conf"},
		{"type", func(d string) error {
			return errors.Join(os.Remove(d+"/tree/.hidden"), os.Mkdir(d+"/tree/.hidden", 0o600), os.Chmod(d+"/tree/.hidden", 0))
		}, "tree/.hidden", "tree/.hidden"},
		{"hard link", func(d string) error {
			return errors.Join(os.Remove(d+"/tree/other"), os.WriteFile(d+"/tree/other", nil, 0o600))
		}, "tree/other", "tree/other"},
		{"zeros in place of a hole", func(d string) error {
			f, err := os.OpenFile(d+"/tree/holes", os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.Write(make([]byte, 1<<20))
			return errors.Join(err, f.Close())
		}, "", ""},
		{"byte in a hole", func(d string) error {
			f, err := os.OpenFile(d+"/tree/holes", os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte{1}, 2<<20+5)
			return errors.Join(err, f.Close())
		}, "tree/holes", "tree/holes"},
		{"times", func(d string) error { return os.Chtimes(d+"/one.conf", time.Unix(1, 0), time.Unix(2, 0)) }, "", ""},
		{"times of a directory", func(d string) error { return os.Chtimes(d+"/tree", time.Unix(1, 0), time.Unix(2, 0)) },
			"", ""},
		{"read", func(d string) error { _, err := os.ReadFile(d + "/one.conf"); return err }, "", ""},
		{"rewritten", func(d string) error {
			return errors.Join(os.Remove(d+"/one.conf"), os.WriteFile(d+"/one.conf", []byte("one\n"), 0o640))
		}, "", ""},
	} {
		for keep, path := range map[bool]string{false: tc.path, true: tc.kept} {
			t.Run(fmt.Sprintf("%s/keep=%t", tc.name, keep), func(t *testing.T) {
				src, dir := source(t)
				before := digests(t, src, froms(keep, keep)...)
				if err := tc.change(dir); err != nil {
					t.Fatal(err)
				}
				after := digests(t, src, froms(keep, keep)...)
				for p := range before {
					if changed := before[p] != after[p]; changed != (p == path) {
						t.Errorf("%s changed: %t", p, changed)
					}
				}
			})
		}
	}
}

func TestDigestOrder(t *testing.T) {
	src, _ := source(t)
	inputs, err := src.Digest(t.Context(), []step.From{{Path: "tree"}, {Path: "one.conf"}})
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, in := range inputs {
		paths = append(paths, in.Path)
	}
	want := []string{"tree", "tree/.hidden", "tree/empty", "tree/holes", "tree/link", "tree/other", "tree/sub",
		"tree/sub/tool", "one.conf"}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("Digest (-want +got):\n%s", diff)
	}
}

// TestInputChanged: a layer is never made of other bytes than its key says.
func TestInputChanged(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(dir string) error
	}{
		{"bytes", func(d string) error { return os.WriteFile(d+"/tree/empty", []byte("x"), 0) }},
		{"mode", func(d string) error { return os.Chmod(d+"/tree/empty", 0o755) }},
		{"new file", func(d string) error { return os.WriteFile(d+"/tree/new", nil, 0o644) }},
		{"link", func(d string) error { return errors.Join(os.Remove(d+"/tree/link"), os.Symlink("x", d+"/tree/link")) }},
		{"nothing", nil},
		{"file removed", func(d string) error { return os.Remove(d + "/tree/.hidden") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src, dir := source(t)
			c := &step.Copy{From: "tree", To: "/x"}
			digests(t, src, c.Inputs()...)
			if tc.change != nil {
				if err := tc.change(dir); err != nil {
					t.Fatal(err)
				}
			}
			err := c.Apply(t.Context(), new(recorder), src)
			if tc.change == nil && err != nil || tc.change != nil && !errors.Is(err, step.ErrInputChanged) {
				t.Errorf("Apply: %v", err)
			}
		})
	}
}

// TestTimes: a copy has the times of what it is a copy of, but for those after
// the epoch that the user sets.
func TestTimes(t *testing.T) {
	early, late := time.Date(1969, 6, 1, 0, 0, 0, 7, time.UTC), time.Date(2107, 1, 1, 0, 0, 0, 123456789, time.UTC)
	epoch := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name  string
		epoch time.Time
		want  []time.Time
	}{
		{"as they are", time.Time{}, []time.Time{late, early}},
		{"bounded", epoch, []time.Time{epoch, early}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			err := errors.Join(os.Mkdir(dir+"/tree", 0o755), os.WriteFile(dir+"/tree/file", nil, 0o644),
				os.Chtimes(dir+"/tree/file", time.Time{}, early), os.Chtimes(dir+"/tree", time.Time{}, late))
			if err != nil {
				t.Fatal(err)
			}
			src, g := &step.Source{Root: root(t, dir), Epoch: tc.epoch}, new(recorder)
			if err := (&step.Copy{From: "tree", To: "/x"}).Apply(t.Context(), g, src); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, g.times); diff != "" {
				t.Errorf("times (-want +got):\n%s", diff)
			}
		})
	}
	g := new(recorder)
	if err := (&step.Write{Path: "/x"}).Apply(t.Context(), g, &step.Source{Epoch: epoch}); err != nil {
		t.Fatal(err)
	}
	if len(g.times) != 1 || !g.times[0].Equal(epoch) {
		t.Errorf("what is written has the times %v, want %v", g.times, epoch)
	}
}

func TestSourceStaysInside(t *testing.T) {
	src, dir := source(t)
	outside := t.TempDir()
	err := errors.Join(os.WriteFile(outside+"/secret", []byte("secret"), 0o644), os.Symlink(outside, dir+"/out"),
		os.Symlink(outside+"/secret", dir+"/tree/secret"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"out/secret", "out", "tree/secret"} {
		if _, err := src.Digest(t.Context(), []step.From{{Path: path}}); err == nil {
			t.Errorf("%s is read, which a link leads out of the recipe's directory to", path)
		}
	}
	g := new(recorder)
	if err := (&step.Copy{From: "tree", To: "/x"}).Apply(t.Context(), g, src); err != nil {
		t.Error(err)
	}
	if want := "put /x/secret 0777 0:0 -> " + outside + "/secret"; !slices.Contains(g.log, want) {
		t.Errorf("Apply: %q, want the link as it is: %s", g.log, want)
	}
	if _, err := src.Digest(t.Context(), []step.From{{Path: "missing"}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Digest of a missing file: %v", err)
	}
}

func TestNotAFile(t *testing.T) {
	src, dir := source(t)
	if err := syscall.Mkfifo(dir+"/tree/pipe", 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"tree", "tree/pipe"} {
		_, err := src.Digest(t.Context(), []step.From{{Path: path}})
		if !errors.Is(err, step.ErrNotAFile) || !strings.Contains(err.Error(), "tree/pipe") {
			t.Errorf("Digest: %v, want %v for tree/pipe", err, step.ErrNotAFile)
		}
	}
}

// TestTooDeep: a tree that goes deeper than any path can name ends the walk.
func TestTooDeep(t *testing.T) {
	src, dir := source(t)
	name := strings.Repeat("d", 255)
	at, err := os.OpenRoot(dir + "/tree")
	for range 20 {
		if err == nil {
			err = at.Mkdir(name, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer at.Close()
		at, err = at.OpenRoot(name)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	_, err = src.Digest(t.Context(), []step.From{{Path: "tree"}})
	if !errors.Is(err, syscall.ENAMETOOLONG) || len(err.Error()) > 200 {
		t.Errorf("Digest: %v, want a short error that the name is too long", err)
	}
}

// TestFragments: a file with more holes than can be told apart has all its data.
func TestFragments(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	dir := t.TempDir()
	f, err := os.Create(dir + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := make([]byte, 10_100*8192)
	for at := 0; at < len(want); at += 8192 {
		want[at] = byte(at>>13) | 1
		if _, err := f.WriteAt(want[at:at+1], int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(int64(len(want))); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	g := &putter{func(h *tar.Header, r io.Reader) error {
		size, data, sparse, err := agent.Sparse(h)
		if err != nil || !sparse || size != int64(len(want)) || len(data) < 1000 {
			return fmt.Errorf("%d bytes in %d ranges: %w", size, len(data), err)
		}
		for _, d := range data {
			if _, err := io.ReadFull(r, got[d.Offset:d.Offset+d.Length]); err != nil {
				return err
			}
		}
		return nil
	}}
	if err := (&step.Copy{From: "file", To: "/x"}).Apply(t.Context(), g, &step.Source{Root: root(t, dir)}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the bytes differ")
	}
}

// putter is a guest to which files are only copied.
type putter struct {
	file func(*tar.Header, io.Reader) error
}

func (*putter) Run(context.Context, agent.Command) error          { return errRun }
func (*putter) ReadFile(context.Context, string) ([]byte, error)  { return nil, errRun }
func (*putter) Stat(context.Context, string) (*agent.Stat, error) { return nil, errRun }
func (*putter) Files() fs.FS                                      { return nil }
func (*putter) Loaders() (*boot.Loaders, error)                   { return nil, errRun }
func (p *putter) Put(_ context.Context, write func(*tar.Writer) error) error {
	r, w := io.Pipe()
	go func() {
		t := tar.NewWriter(w)
		err := write(t)
		if err == nil {
			err = t.Close()
		}
		w.CloseWithError(err)
	}()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = p.file(h, t)
		}
		if err != nil {
			r.CloseWithError(err)
			return err
		}
	}
}
