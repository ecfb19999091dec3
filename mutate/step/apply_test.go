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
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/step"
)

// recorder is a guest that writes down what it is asked for.
type recorder struct {
	files map[string]string
	fail  string // a command that contains this fails
	log   []string
}

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
		owner := h.PAXRecords[agent.OwnerRecord]
		if owner == "" {
			owner = fmt.Sprintf("%d:%d", h.Uid, h.Gid)
		}
		line := fmt.Sprintf("put %s %04o %s", h.Name, h.Mode, owner)
		switch h.Typeflag {
		case tar.TypeReg:
			line += fmt.Sprintf(" %q", content)
		case tar.TypeSymlink:
			line += " -> " + h.Linkname
		case tar.TypeDir:
			line += " dir"
		}
		for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
			if name, ok := strings.CutPrefix(k, agent.XattrRecord); ok {
				line += fmt.Sprintf(" %s=%q", name, h.PAXRecords[k])
			}
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
		unix.Lsetxattr(dir+"/tree/sub/tool", "user.note", []byte("x"), 0),
		os.Symlink("../../anywhere", dir+"/tree/link"),
		os.WriteFile(dir+"/tree/empty", nil, 0o600),
		os.WriteFile(dir+"/one.conf", []byte("one\n"), 0o640),
	)
	if err != nil {
		t.Fatal(err)
	}
	return &step.Source{Root: root(t, dir)}, dir
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

const (
	get    = "run apt-get --quiet --assume-yes -o APT::Keep-Downloaded-Packages=false -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "
	getEnv = ` | DEBIAN_FRONTEND=noninteractive | DPKG_FORCE=unsafe-io,confold,confdef | cover /usr/sbin/policy-rc.d 0755 "#!/bin/sh\nexit 101\n"`
)

func TestApply(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want []string
	}{
		{`run: "apt clean\n"`, []string{`script "apt clean\n"`}},
		{`run: [ldconfig, -v]`, []string{"run ldconfig -v"}},
		{`run: {script: x, env: {B: "2", A: "1"}, workdir: /srv, timeout: 90s}`, []string{`script "x" | A=1 | B=2 | in /srv | for 1m30s`}},

		{`write: {path: /etc/motd, content: "hi\n"}`, []string{`put /etc/motd 0644 0:0 "hi\n"`}},
		{`write: {path: /x, mode: "4711", owner: "daemon:adm"}`, []string{`put /x 4711 daemon:adm ""`}},

		{`copy: {from: one.conf, to: /etc/renamed}`, []string{`put /etc/renamed 0640 0:0 "one\n"`}},
		{`copy: {from: one.conf, to: /etc/app/}`, []string{`put /etc/app/one.conf 0640 0:0 "one\n"`}},
		{`copy: {from: tree/sub/tool, to: /opt/, mode: "0700", owner: "1:2"}`, []string{`put /opt/tool 0700 1:2 "tool" user.note="x"`}},
		{`copy: {from: tree/link, to: /opt/}`, []string{`put /opt/link 0777 0:0 -> ../../anywhere`}},
		{`copy: {from: tree, to: /srv/t}`, []string{
			`put /srv/t 0755 0:0 dir`, `put /srv/t/empty 0600 0:0 ""`, `put /srv/t/link 0777 0:0 -> ../../anywhere`,
			`put /srv/t/sub 0750 0:0 dir`, `put /srv/t/sub/tool 4755 12:34 "tool" user.note="x"`}},
		{`copy: {from: tree/sub/, to: /srv/t/, mode: "0644", owner: daemon}`, []string{
			`put /srv/t 0750 daemon dir`, `put /srv/t/tool 0644 daemon "tool" user.note="x"`}},
		{`copy: {from: tree/sub, to: /}`, []string{`put / 0750 0:0 dir`, `put /tool 4755 12:34 "tool" user.note="x"`}},
		{`copy: {from: ., to: /all}`, []string{
			`put /all 0755 0:0 dir`, `put /all/one.conf 0640 0:0 "one\n"`, `put /all/tree 0755 0:0 dir`, `put /all/tree/empty 0600 0:0 ""`,
			`put /all/tree/link 0777 0:0 -> ../../anywhere`, `put /all/tree/sub 0750 0:0 dir`, `put /all/tree/sub/tool 4755 12:34 "tool" user.note="x"`}},

		{`packages: [nginx-light, curl]`, []string{get + "install -- nginx-light curl" + getEnv}},
		{`packages: {install: [a], remove: [b, c], update: true}`, []string{
			get + "update -o APT::Update::Error-Mode=any" + getEnv, get + "remove -- b c" + getEnv, get + "install -- a" + getEnv}},

		{`systemd: {enable: [a.service, b.timer], disable: [c.socket], mask: [d.mount], default-target: e.target}`, []string{
			"run systemctl disable -- c.socket | SYSTEMD_OFFLINE=1", "run systemctl mask -- d.mount | SYSTEMD_OFFLINE=1",
			"run systemctl enable -- a.service b.timer | SYSTEMD_OFFLINE=1", "run systemctl set-default -- e.target | SYSTEMD_OFFLINE=1"}},
	} {
		t.Run(tc.in, func(t *testing.T) {
			all, err := step.DecodeAll(parse(t, "- "+tc.in))
			if err != nil {
				t.Fatal(err)
			}
			src, _ := source(t)
			g := &recorder{files: map[string]string{"/etc/os-release": "ID=debian\n"}}
			if err := all[0].Step.Apply(t.Context(), g, src); err != nil {
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
		{`packages: {install: [a], remove: [b], update: true}`, " remove ", 2},
		{`systemd: {enable: [a.service], disable: [b.service]}`, " disable ", 1},
		{`run: x`, "x", 1},
	} {
		all, err := step.DecodeAll(parse(t, "- "+tc.in))
		if err != nil {
			t.Fatal(err)
		}
		g := &recorder{files: map[string]string{"/etc/os-release": "ID=debian\n"}, fail: tc.fail}
		if err := all[0].Step.Apply(t.Context(), g, nil); !errors.Is(err, errRun) || len(g.log) != tc.ran {
			t.Errorf("%s: %v after %q", tc.in, err, g.log)
		}
	}
}

func TestPackageManager(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  string // of the error
	}{
		{"by ID", map[string]string{"/etc/os-release": "ID=ubuntu\n"}, ""},
		{"by ID_LIKE", map[string]string{"/etc/os-release": "ID=mint\nID_LIKE=\"ubuntu debian\"\n"}, ""},
		{"in /usr", map[string]string{"/usr/lib/os-release": "ID=debian\n"}, ""},
		{"unknown", map[string]string{"/etc/os-release": "ID=fedora\n"}, `the image is "fedora", and imgmut knows those of debian, ubuntu`},
		{"none", nil, "find the package manager: open /usr/lib/os-release"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := (&step.Packages{Install: []string{"a"}}).Apply(t.Context(), &recorder{files: tc.files}, nil)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("Apply: %v, want %q", err, tc.want)
			}
		})
	}
}

// digests gives the digest of each file by its path.
func digests(t *testing.T, src *step.Source, names ...string) map[string]string {
	t.Helper()
	inputs, err := src.Digest(t.Context(), names)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, in := range inputs {
		m[in.Path] = in.Digest
	}
	return m
}

func TestDigest(t *testing.T) {
	const tool = "tree/sub/tool"
	for _, tc := range []struct {
		name   string
		change func(dir string) error
		path   string // whose digest changes; none if empty
	}{
		{"bytes", func(d string) error { return os.WriteFile(d+"/one.conf", []byte("two\n"), 0) }, "one.conf"},
		{"length", func(d string) error { return os.Truncate(d+"/one.conf", 5) }, "one.conf"},
		{"mode", func(d string) error { return os.Chmod(d+"/one.conf", 0o644) }, "one.conf"},
		{"special bits", func(d string) error { return os.Chmod(d+"/"+tool, 0o755) }, tool},
		{"mode of a directory", func(d string) error { return os.Chmod(d+"/tree/sub", 0o755) }, "tree/sub"},
		{"owner", func(d string) error { return os.Chown(d+"/one.conf", 1, 0) }, "one.conf"},
		{"group", func(d string) error { return os.Chown(d+"/one.conf", 0, 1) }, "one.conf"},
		{"link target", func(d string) error {
			return errors.Join(os.Remove(d+"/tree/link"), os.Symlink("../elsewhere", d+"/tree/link"))
		}, "tree/link"},
		{"attribute", func(d string) error { return unix.Lsetxattr(d+"/"+tool, "user.note", []byte("y"), 0) }, tool},
		{"new attribute", func(d string) error { return unix.Lsetxattr(d+"/one.conf", "user.x", nil, 0) }, "one.conf"},
		{"type", func(d string) error {
			return errors.Join(os.Remove(d+"/tree/empty"), os.Mkdir(d+"/tree/empty", 0o600), os.Chmod(d+"/tree/empty", 0o600))
		}, "tree/empty"},
		{"times", func(d string) error { return os.Chtimes(d+"/one.conf", time.Unix(1, 0), time.Unix(2, 0)) }, ""},
		{"times of a directory", func(d string) error { return os.Chtimes(d+"/tree", time.Unix(1, 0), time.Unix(2, 0)) }, ""},
		{"read", func(d string) error { _, err := os.ReadFile(d + "/one.conf"); return err }, ""},
		{"rewritten", func(d string) error {
			return errors.Join(os.Remove(d+"/one.conf"), os.WriteFile(d+"/one.conf", []byte("one\n"), 0o640))
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src, dir := source(t)
			before := digests(t, src, "one.conf", "tree")
			if err := tc.change(dir); err != nil {
				t.Fatal(err)
			}
			after := digests(t, src, "one.conf", "tree")
			for path := range before {
				if changed := before[path] != after[path]; changed != (path == tc.path) {
					t.Errorf("%s changed: %t", path, changed)
				}
			}
		})
	}
}

func TestDigestOrder(t *testing.T) {
	src, _ := source(t)
	inputs, err := src.Digest(t.Context(), []string{"tree", "one.conf"})
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, in := range inputs {
		paths = append(paths, in.Path)
	}
	want := []string{"tree", "tree/empty", "tree/link", "tree/sub", "tree/sub/tool", "one.conf"}
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
		{"mode", func(d string) error { return os.Chmod(d+"/tree/empty", 0o644) }},
		{"new file", func(d string) error { return os.WriteFile(d+"/tree/new", nil, 0o644) }},
		{"link", func(d string) error { return errors.Join(os.Remove(d+"/tree/link"), os.Symlink("x", d+"/tree/link")) }},
		{"nothing", nil},
		{"file removed", func(d string) error { return os.Remove(d + "/tree/empty") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src, dir := source(t)
			src.Want = digests(t, src, "tree")
			if tc.change != nil {
				if err := tc.change(dir); err != nil {
					t.Fatal(err)
				}
			}
			err := (&step.Copy{From: "tree", To: "/x"}).Apply(t.Context(), new(recorder), src)
			if tc.change == nil && err != nil || tc.change != nil && !errors.Is(err, step.ErrInputChanged) {
				t.Errorf("Apply: %v", err)
			}
		})
	}
}

func TestSourceStaysInside(t *testing.T) {
	src, dir := source(t)
	outside := t.TempDir()
	if err := errors.Join(os.WriteFile(outside+"/secret", []byte("secret"), 0o644), os.Symlink(outside, dir+"/out"), os.Symlink(outside+"/secret", dir+"/tree/secret")); err != nil {
		t.Fatal(err)
	}
	if _, err := src.Digest(t.Context(), []string{"out/secret"}); err == nil {
		t.Error("a link out of the recipe's directory is followed")
	}
	g := new(recorder)
	if err := (&step.Copy{From: "tree/secret", To: "/x"}).Apply(t.Context(), g, src); err != nil {
		t.Error(err)
	}
	if want := "put /x 0777 0:0 -> " + outside + "/secret"; len(g.log) != 1 || g.log[0] != want {
		t.Errorf("Apply: %q, want the link as it is: %s", g.log, want)
	}
	if _, err := src.Digest(t.Context(), []string{"missing"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Digest of a missing file: %v", err)
	}
}

func TestNotAFile(t *testing.T) {
	src, dir := source(t)
	if err := syscall.Mkfifo(dir+"/tree/pipe", 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := src.Digest(t.Context(), []string{"tree"}); !errors.Is(err, step.ErrNotAFile) || !strings.Contains(err.Error(), "tree/pipe") {
		t.Errorf("Digest: %v, want %v for tree/pipe", err, step.ErrNotAFile)
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
