package step_test

import (
	"archive/tar"
	"context"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/step"
)

const presetHeader = "# By imgmut: a first boot leaves what its recipes have enabled and disabled (systemd.preset(5)).\n"

// treeGuest is a guest that is a directory, on which the real systemctl works.
type treeGuest struct {
	t   *testing.T
	dir string
}

func (g treeGuest) path(name string) string { return filepath.Join(g.dir, name) }

func (g treeGuest) Run(_ context.Context, c agent.Command) error {
	cmd := exec.Command(c.Argv[0], append([]string{"--root=" + g.dir}, c.Argv[1:]...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		g.t.Errorf("%s: %v\n%s", cmd, err, out)
	}
	return nil
}

func (g treeGuest) Put(ctx context.Context, write func(*tar.Writer) error) error {
	p := putter{func(h *tar.Header, r io.Reader) error {
		b, err := io.ReadAll(r)
		if err == nil {
			g.write(h.Name, string(b))
		}
		return err
	}}
	return p.Put(ctx, write)
}

func (g treeGuest) ReadFile(_ context.Context, name string) ([]byte, error) {
	return os.ReadFile(g.path(name))
}

func (g treeGuest) Stat(_ context.Context, name string) (*agent.Stat, error) {
	st := &agent.Stat{}
	fi, err := os.Lstat(g.path(name))
	if err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		st.Link, err = os.Readlink(g.path(name))
	}
	return st, err
}

func (g treeGuest) Files() fs.FS { return os.DirFS(g.dir) }

func (g treeGuest) Loaders() (*boot.Loaders, error) {
	return boot.Read([]boot.Place{{At: "/", FS: g.Files()}}), nil
}

func (g treeGuest) write(name, text string) {
	g.t.Helper()
	if err := os.MkdirAll(filepath.Dir(g.path(name)), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(g.path(name), []byte(text), 0o644); err != nil {
		g.t.Fatal(err)
	}
}

// systemctl runs it, whatever it says of units that presets cannot be applied to.
func (g treeGuest) systemctl(words ...string) {
	exec.Command("systemctl", append([]string{"--root=" + g.dir}, words...)...).Run()
}

// links are what is enabled and masked in the tree.
func (g treeGuest) links() (list []string) {
	g.t.Helper()
	top := g.path("/etc/systemd/system")
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSymlink != 0 {
			target, _ := os.Readlink(path)
			list = append(list, strings.TrimPrefix(path, top+"/")+" "+filepath.Base(target))
		}
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return list
}

// image is a tree with units of all sorts, in which everything that can be is enabled.
func image(t *testing.T, presets string) treeGuest {
	fixtures.Require(t, fixtures.Systemd)
	g := treeGuest{t, t.TempDir()}
	for name, install := range map[string]string{
		"web.service":            "WantedBy=multi-user.target\nAlso=web.socket web-%i.service",
		"web.socket":             "WantedBy=sockets.target\nAlso=web.service \\\n  helper.service",
		"helper.service":         "WantedBy=multi-user.target",
		"other.service":          "WantedBy=multi-user.target\nAlias=second.service",
		"getty@.service":         "WantedBy=getty.target\nDefaultInstance=tty1",
		"mount-a@.service":       "WantedBy=multi-user.target",
		`odd\x2dname.service`:    "WantedBy=multi-user.target",
		"multi-user.target":      "",
		"getty.target":           "",
		"graphical.target":       "",
		"sockets.target":         "",
		"never-touched.service":  "WantedBy=multi-user.target",
		"never-touched2.service": "WantedBy=multi-user.target",
	} {
		body := "[Unit]\nAlso=nothing.service\n"
		if strings.HasSuffix(name, ".service") {
			body += "[Service]\nExecStart=/bin/true\n"
		}
		g.write("/usr/lib/systemd/system/"+name, body+"[Install]\n"+install+"\n")
	}
	// What comes first of two digits does not come before imgmut's.
	g.write("/usr/lib/systemd/system-preset/00-distribution.preset", presets)
	for name, target := range map[string]string{
		"/usr/lib/systemd/system/alias.service":   "other.service",
		"/usr/lib/systemd/system/autovt@.service": "getty@.service",
		"/lib": "usr/lib",
	} {
		if err := os.Symlink(target, g.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(g.path("/etc/systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
	g.systemctl("preset-all")
	return g
}

// TestFirstBootLeavesUnitsAlone: what steps enabled, disabled and masked is as it was
// after systemd has applied presets in both of its ways, whatever the distribution's
// own presets say.
func TestFirstBootLeavesUnitsAlone(t *testing.T) {
	for _, tc := range []struct {
		name  string
		steps string
		want  []string // links that there are
		not   []string // or not
	}{
		{"disable and enable", "- systemd: {disable: [other.service], enable: [helper.service]}",
			[]string{"multi-user.target.wants/helper.service helper.service"},
			[]string{"multi-user.target.wants/other.service other.service", "second.service other.service"}},
		{"also", "- systemd: {enable: [helper.service]}\n- systemd: {disable: [web.service]}", nil,
			[]string{"multi-user.target.wants/web.service web.service", "sockets.target.wants/web.socket web.socket",
				"multi-user.target.wants/helper.service helper.service"}},
		{"disabled, then wanted by another", "- systemd: {disable: [helper.service]}\n- systemd: {enable: [web.service]}",
			[]string{"multi-user.target.wants/web.service web.service", "multi-user.target.wants/helper.service helper.service"}, nil},
		{"alias in /etc", "- systemd: {enable: [other.service]}\n- systemd: {disable: [second.service]}", nil,
			[]string{"multi-user.target.wants/other.service other.service", "second.service other.service"}},
		{"alias in /usr", "- systemd: {disable: [other.service]}\n- systemd: {enable: [alias.service]}",
			[]string{"multi-user.target.wants/other.service other.service"}, nil},
		{"the last word", "- systemd: {enable: [other.service]}\n- systemd: {disable: [other.service], enable: [other.service]}\n" +
			"- systemd: {disable: [web.service]}\n- systemd: {disable: [other.service]}", nil,
			[]string{"multi-user.target.wants/other.service other.service"}},
		{"mask", "- systemd: {enable: [other.service]}\n- systemd: {mask: [other.service, helper.service]}",
			[]string{"other.service null", "helper.service null"}, nil},
		{"mask and disable", "- systemd: {mask: [helper.service]}\n- systemd: {disable: [helper.service]}",
			[]string{"helper.service null"}, nil},
		{"instances", "- systemd: {enable: [getty@tty3.service, mount-a@x.service, 'mount-a@a\\x2db.service']}",
			[]string{"getty.target.wants/getty@tty3.service getty@.service", "multi-user.target.wants/mount-a@x.service mount-a@.service",
				`multi-user.target.wants/mount-a@a\x2db.service mount-a@.service`}, nil},
		{"instance disabled", "- systemd: {disable: [getty@tty1.service]}", nil,
			[]string{"getty.target.wants/getty@tty1.service getty@.service"}},
		{"one of two instances", "- systemd: {enable: [getty@tty1.service, getty@tty2.service]}\n" +
			"- systemd: {disable: [autovt@tty1.service]}",
			[]string{"getty.target.wants/getty@tty2.service getty@.service"},
			[]string{"getty.target.wants/getty@tty1.service getty@.service"}},
		{"odd name", `- systemd: {disable: ['odd\x2dname.service']}`, nil,
			[]string{`multi-user.target.wants/odd\x2dname.service odd\x2dname.service`}},
		{"default target", "- systemd: {default-target: multi-user.target}",
			[]string{"default.target multi-user.target"}, nil},
	} {
		for _, first := range []struct{ policy, mode string }{{"enable *\n", "full"}, {"disable *\n", "full"}, {"", "enable-only"}} {
			t.Run(tc.name+"/"+first.policy, func(t *testing.T) {
				g := image(t, first.policy)
				all, err := step.DecodeAll(parse(t, tc.steps))
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range all {
					if err := d.Value.Apply(t.Context(), g, nil); err != nil {
						t.Fatal(err)
					}
				}
				g.holds("when it was made", tc.want, tc.not)
				g.systemctl("preset-all", "--preset-mode="+first.mode)
				g.holds("after its first boot", tc.want, tc.not)
			})
		}
	}
}

func (g treeGuest) holds(when string, want, not []string) {
	g.t.Helper()
	links := g.links()
	for _, l := range want {
		if !slices.Contains(links, l) {
			g.t.Errorf("%s there is no link %s", when, l)
		}
	}
	for _, l := range not {
		if slices.Contains(links, l) {
			g.t.Errorf("%s there is a link %s", when, l)
		}
	}
	if g.t.Failed() {
		b, _ := os.ReadFile(g.path("/etc/systemd/system-preset/0-imgmut.preset"))
		g.t.Logf("links:\n%s\npresets:\n%s", strings.Join(links, "\n"), b)
	}
}

// TestPresetsAreMerged: a step keeps the rules of those before it, and no line of a
// stranger's.
func TestPresetsAreMerged(t *testing.T) {
	g := treeGuest{t, t.TempDir()}
	g.write("/etc/systemd/system-preset/0-imgmut.preset",
		"# somebody's\nenable a@.service x y\n disable  b.service\nenable *\nignore c.service\nenable b.service\n")
	s := &step.Systemd{Enable: []string{"a@y.service", "a@z.service"}, Disable: []string{"a@x.service", "d.socket"}}
	if err := s.Apply(t.Context(), noRun{g}, nil); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(g.path("/etc/systemd/system-preset/0-imgmut.preset"))
	if err != nil {
		t.Fatal(err)
	}
	want := presetHeader + "enable a@.service y z\ndisable b.service\ndisable d.socket\n"
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Errorf("the file (-want +got):\n%s", diff)
	}
}

type noRun struct{ treeGuest }

func (noRun) Run(context.Context, agent.Command) error { return nil }
