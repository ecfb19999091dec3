package step_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/step"
)

// recorder is a guest that writes down what it is asked for.
type recorder struct {
	files map[string]string
	fail  string // a command that contains this fails
	times []time.Time
	log   []string
	keeps bool // what is put becomes part of files
}

// debian is what says that the package manager is apt.
var debian = map[string]string{"/etc/os-release": "ID=debian\n", "/usr/bin/apt-get": ""}

var errRun = errors.New("told to fail")

func (g *recorder) Run(_ context.Context, c agent.Command) error {
	line := "run " + strings.Join(c.Argv, " ")
	if c.Script != "" {
		line = fmt.Sprintf("script %q", c.Script)
	}
	for _, k := range slices.Sorted(maps.Keys(c.Env)) {
		line += " | " + k + "=" + c.Env[k]
	}
	if c.Dir != "" {
		line += " | in " + c.Dir
	}
	if c.Timeout != 0 {
		line += " | for " + c.Timeout.String()
	}
	for _, cover := range c.Covers {
		line += fmt.Sprintf(" | cover %s %04o %q", cover.Path, cover.Mode, cover.Content)
	}
	g.log = append(g.log, line)
	if g.fail != "" && strings.Contains(line, g.fail) {
		return errRun
	}
	return nil
}

func (g *recorder) Put(_ context.Context, write func(*tar.Writer) error) error {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := write(w); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if g.keeps {
			g.files[h.Name] = string(content)
		}
		line := fmt.Sprintf("put %s %04o %s", h.Name, h.Mode, agent.Owner(h))
		switch h.Typeflag {
		case tar.TypeReg:
			if size, data, sparse, err := agent.Sparse(h); err != nil {
				return err
			} else if sparse {
				line += fmt.Sprintf(" %d %v", size, data)
			}
			line += fmt.Sprintf(" %q", content)
		case tar.TypeLink:
			line += " is " + h.Linkname
		case tar.TypeSymlink:
			line += " -> " + h.Linkname
		case tar.TypeDir:
			line += " dir"
		}
		attrs := agent.Xattrs(h)
		for _, k := range slices.Sorted(maps.Keys(attrs)) {
			line += fmt.Sprintf(" %s=%q", k, attrs[k])
		}
		if t, ok, err := agent.Time(h); err != nil {
			return err
		} else if ok {
			g.times = append(g.times, t)
		}
		g.log = append(g.log, line)
	}
}

func (g *recorder) ReadFile(_ context.Context, name string) ([]byte, error) {
	if s, ok := g.files[name]; ok {
		return []byte(s), nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (g *recorder) Stat(_ context.Context, name string) (*agent.Stat, error) {
	if _, ok := g.files[name]; ok {
		return &agent.Stat{}, nil
	}
	return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
}

func (g *recorder) Files() fs.FS {
	files := fstest.MapFS{}
	for name, text := range g.files {
		files[strings.TrimPrefix(name, "/")] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
	}
	return files
}

func (g *recorder) Loaders() (*boot.Loaders, error) {
	return boot.Read([]boot.Place{{At: "/", FS: g.Files()}}), nil
}

// source is a recipe's directory with files of every sort.
func source(t *testing.T) (*step.Source, string) {
	t.Helper()
	fixtures.Require(t, fixtures.Root)
	dir := t.TempDir()
	err := errors.Join(
		os.MkdirAll(dir+"/tree/sub", 0o755),
		os.WriteFile(dir+"/tree/sub/tool", []byte("tool"), 0o755),
		os.Chmod(dir+"/tree/sub", 0o750),
		os.Chown(dir+"/tree/sub/tool", 12, 34),
		os.Chmod(dir+"/tree/sub/tool", 0o755|fs.ModeSetuid),
		unix.Lsetxattr(dir+"/tree/sub/tool", "user.a=b", []byte("x"), 0),
		os.Symlink("../../anywhere", dir+"/tree/link"),
		os.WriteFile(dir+"/tree/empty", nil, 0o600),
		os.WriteFile(dir+"/tree/.hidden", nil, 0),
		os.Link(dir+"/tree/empty", dir+"/tree/other"),
		withHoles(dir+"/tree/holes"),
		os.Symlink("tree/sub", dir+"/current"),
		os.Symlink("current/tool", dir+"/latest"),
		os.WriteFile(dir+"/one.conf", []byte("one\n"), 0o640),
	)
	if err != nil {
		t.Fatal(err)
	}
	return &step.Source{Root: root(t, dir)}, dir
}

// withHoles makes a file of 3 MiB with 4 KiB of data.
func withHoles(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(bytes.Repeat([]byte("d"), 4096), 1<<20)
	return errors.Join(err, f.Truncate(3<<20), f.Close())
}

func root(t *testing.T, dir string) *os.Root {
	t.Helper()
	r, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestApply(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want []string
	}{
		{`run: "apt clean\n"`, []string{`script "apt clean\n"`}},
		{`run: [ldconfig, -v]`, []string{"run ldconfig -v"}},
		{`run: {script: x, env: {B: "2", A: "1"}, workdir: /srv, timeout: 90s}`,
			[]string{`script "x" | A=1 | B=2 | in /srv | for 1m30s`}},

		{`write: {path: /etc/motd, content: "hi\n"}`, []string{`put /etc/motd 0644 0:0 "hi\n"`}},
		{`write: {path: /x, mode: "4711", owner: "daemon:adm"}`, []string{`put /x 4711 daemon:adm ""`}},

		{`copy: {from: one.conf, to: /etc/renamed}`, []string{`put /etc/renamed 0644 0:0 "one\n"`}},
		{`copy: {from: one.conf, to: /etc/renamed, mode: keep}`, []string{`put /etc/renamed 0640 0:0 "one\n"`}},
		{`copy: {from: one.conf, to: /etc/app/}`, []string{`put /etc/app/one.conf 0644 0:0 "one\n"`}},
		{`copy: {from: tree/sub/tool, to: /opt/, mode: "0700", owner: "1:2"}`,
			[]string{`put /opt/tool 0700 1:2 "tool" user.a=b="x"`}},
		{`copy: {from: current, to: /opt/}`, []string{`put /opt 0755 0:0 dir`, `put /opt/tool 0755 0:0 "tool" user.a=b="x"`}},
		{`copy: {from: latest, to: /opt/}`, []string{`put /opt/latest 0755 0:0 "tool" user.a=b="x"`}},
		{`copy: {from: tree, to: /srv/t}`, []string{
			`put /srv/t 0755 0:0 dir`, `put /srv/t/.hidden 0000 0:0 ""`, `put /srv/t/empty 0644 0:0 ""`,
			`put /srv/t/holes 0644 0:0 3145728 [{1048576 4096}] "` + strings.Repeat("d", 4096) + `"`,
			`put /srv/t/link 0777 0:0 -> ../../anywhere`,
			`put /srv/t/other 0644 0:0 is /srv/t/empty`, `put /srv/t/sub 0755 0:0 dir`,
			`put /srv/t/sub/tool 0755 0:0 "tool" user.a=b="x"`}},
		{`copy: {from: tree/sub/, to: /srv/t/, mode: "0644", owner: daemon}`, []string{
			`put /srv/t 0755 daemon dir`, `put /srv/t/tool 0644 daemon "tool" user.a=b="x"`}},
		{`copy: {from: tree/sub, to: /, mode: keep, owner: keep}`,
			[]string{`put / 0750 0:0 dir`, `put /tool 4755 12:34 "tool" user.a=b="x"`}},
		{`copy: {from: ., to: /all}`, []string{
			`put /all 0755 0:0 dir`, `put /all/current 0777 0:0 -> tree/sub`, `put /all/latest 0777 0:0 -> current/tool`,
			`put /all/one.conf 0644 0:0 "one\n"`,
			`put /all/tree 0755 0:0 dir`, `put /all/tree/.hidden 0000 0:0 ""`, `put /all/tree/empty 0644 0:0 ""`,
			`put /all/tree/holes 0644 0:0 3145728 [{1048576 4096}] "` + strings.Repeat("d", 4096) + `"`,
			`put /all/tree/link 0777 0:0 -> ../../anywhere`,
			`put /all/tree/other 0644 0:0 is /all/tree/empty`, `put /all/tree/sub 0755 0:0 dir`,
			`put /all/tree/sub/tool 0755 0:0 "tool" user.a=b="x"`}},
		{`systemd: {enable: [a.service, b.timer], disable: [c.socket], mask: [d.mount], default-target: e.target}`, []string{
			"run systemctl disable -- c.socket | SYSTEMD_OFFLINE=1", "run systemctl mask -- d.mount | SYSTEMD_OFFLINE=1",
			"run systemctl enable -- a.service b.timer | SYSTEMD_OFFLINE=1",
			"run systemctl set-default -- e.target | SYSTEMD_OFFLINE=1",
			fmt.Sprintf("put /etc/systemd/system-preset/0-imgmut.preset 0644 0:0 %q",
				presetHeader+"disable c.socket\nenable a.service\nenable b.timer\nenable e.target\n")}},
		{`systemd: {mask: [d.mount]}`, []string{"run systemctl mask -- d.mount | SYSTEMD_OFFLINE=1"}},
	} {
		t.Run(tc.in, func(t *testing.T) {
			all, err := step.DecodeAll(parse(t, "- "+tc.in))
			if err != nil {
				t.Fatal(err)
			}
			src, _ := source(t)
			g := &recorder{files: debian}
			if err := all[0].Value.Apply(t.Context(), g, src); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, g.log); diff != "" {
				t.Errorf("Apply (-want +got):\n%s", diff)
			}
		})
	}
}

// TestApplyStopsAtError: what fails is not followed by more.
func TestApplyStopsAtError(t *testing.T) {
	for _, tc := range []struct {
		in, fail string
		ran      int
	}{
		{`packages: {install: [a], remove: [b], update: true}`, " remove ", 1},
		{`systemd: {enable: [a.service], disable: [b.service]}`, " disable ", 1},
		{`run: x`, "x", 1},
	} {
		all, err := step.DecodeAll(parse(t, "- "+tc.in))
		if err != nil {
			t.Fatal(err)
		}
		g := &recorder{files: debian, fail: tc.fail}
		if err := all[0].Value.Apply(t.Context(), g, nil); !errors.Is(err, errRun) || len(g.log) != tc.ran {
			t.Errorf("%s: %v after %q", tc.in, err, g.log)
		}
	}
}

// TestPackageFiles: those beside the recipe come into the image and are part of
// the key, those of the image are taken where they are.
func TestPackageFiles(t *testing.T) {
	dir := t.TempDir()
	err := errors.Join(os.Mkdir(dir+"/sub", 0o755), os.WriteFile(dir+"/sub/x.deb", []byte("x"), 0o600),
		os.WriteFile(dir+"/y.deb", []byte("y"), 0o400))
	if err != nil {
		t.Fatal(err)
	}
	all, err := step.DecodeAll(parse(t, "- packages: [./sub/x.deb, ./y.deb, /root/z.deb, nano]"))
	if err != nil {
		t.Fatal(err)
	}
	inputs := all[0].Value.(step.Inputter).Inputs()
	if want := []step.From{{Path: "sub/x.deb"}, {Path: "y.deb"}}; !slices.Equal(inputs, want) {
		t.Errorf("inputs %+v, want %+v", inputs, want)
	}
	g := &recorder{files: debian}
	if err := all[0].Value.Apply(t.Context(), g, &step.Source{Root: root(t, dir)}); err != nil {
		t.Fatal(err)
	}
	const install = `install '/var/cache/imgmut/files/sub/x.deb' '/var/cache/imgmut/files/y.deb' '/root/z.deb' 'nano'\nfinish\n`
	if len(g.log) != 3 || g.log[0] != `put /var/cache/imgmut/files/sub/x.deb 0644 0:0 "x"` ||
		g.log[1] != `put /var/cache/imgmut/files/y.deb 0444 0:0 "y"` || !strings.Contains(g.log[2], install) {
		t.Errorf("Apply: %q", g.log)
	}

	g = &recorder{files: map[string]string{"/usr/bin/pacman": ""}}
	err = all[0].Value.Apply(t.Context(), g, nil)
	if err == nil || !strings.Contains(err.Error(), "the image has pacman, which takes files that end in .pkg.tar") {
		t.Errorf("Apply where files are others: %v", err)
	}
	if len(g.log) > 0 {
		t.Errorf("and the image was changed: %q", g.log)
	}
}

func TestCopyCancelled(t *testing.T) {
	src, _ := source(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errRun)
	if err := (&step.Copy{From: "tree", To: "/x"}).Apply(ctx, new(recorder), src); !errors.Is(err, errRun) {
		t.Errorf("Apply: %v, want the cause", err)
	}
}

// TestCopyTellsOfPrivateFiles: what a umask may have made is not kept, so that
// two checkouts agree; a key that was private on purpose must not become public
// without a word.
func TestCopyTellsOfPrivateFiles(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]fs.FileMode{
		"key": 0o600, "page": 0o644, "tree/a": 0o600, "tree/b": 0o600, "sealed": 0o400,
	} {
		file := filepath.Join(dir, name)
		err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o600), os.Chmod(file, mode))
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		copy step.Copy
		want string // in the note; none if empty
	}{
		{step.Copy{From: "key", To: "/key"},
			"key, which only its owner may read here, can be read by everybody in the image (1 such"},
		{step.Copy{From: "tree", To: "/tree"}, "(2 such files)"},
		{step.Copy{From: "key", To: "/key", Mode: "0644"}, ""},
		{step.Copy{From: "key", To: "/key", Mode: "keep"}, ""},
		{step.Copy{From: "page", To: "/page"}, ""},
		{step.Copy{From: "sealed", To: "/sealed"}, ""}, // given by hand, and kept
	} {
		var notes []string
		src := &step.Source{Root: root(t, dir), Note: func(text string) { notes = append(notes, text) }}
		if err := tc.copy.Apply(t.Context(), new(recorder), src); err != nil {
			t.Fatal(err)
		}
		if said := strings.Join(notes, "\n"); (said == "") != (tc.want == "") || !strings.Contains(said, tc.want) {
			t.Errorf("%+v: said %q, want %q", tc.copy, said, tc.want)
		}
	}
}
