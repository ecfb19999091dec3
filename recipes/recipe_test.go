package recipes

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const full = `---
version: 1
name: web
base: {path: ../base.raw, sha256: ` + "ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef0123456789" + `}
steps:
  - run: apt-get clean
  - name: the site
    env: {A: "1", _b2: x y}
    network: true
    max-age: 1w2d12h
    timeout: 5m
    copy: {from: site/, to: /srv/www, owner: www-data:www-data}
verify:
  - package: nginx-light
register: {machined: true}
`

func TestParse(t *testing.T) {
	r, err := Parse("dir/sub/web.yaml", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	want := &Recipe{
		File: "dir/sub/web.yaml", Dir: "dir/sub", Version: 1, Name: "web",
		Base: Base{Path: "dir/base.raw", Pos: Pos{Line: 4, Col: 7},
			SHA256: "abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789"},
		Steps: []Step{
			{Index: 0, Kind: "run", Pos: Pos{Line: 6, Col: 5}},
			{Index: 1, Name: "the site", Kind: "copy", Env: map[string]string{"A": "1", "_b2": "x y"},
				Network: &yes, MaxAge: (9*24 + 12) * time.Hour, Timeout: 5 * time.Minute, Pos: Pos{Line: 7, Col: 5}},
		},
		Verify:   []Assertion{{Index: 0, Kind: "package", Pos: Pos{Line: 14, Col: 5}}},
		Register: Register{Machined: true},
		Digest:   fmt.Sprintf("%x", sha256.Sum256([]byte(full))),
	}
	if d := cmp.Diff(want, r, cmpopts.IgnoreTypes(Options{}), cmp.AllowUnexported(Pos{})); d != "" {
		t.Error(d)
	}
}

func TestBase(t *testing.T) {
	for in, want := range map[string]Base{
		"debian-12":        {Name: "debian-12"},
		"debian-12.raw":    {Path: "dir/debian-12.raw"},
		"disk.img":         {Path: "dir/disk.img"},
		"./debian":         {Path: "dir/debian"},
		"/srv/../images/a": {Path: "/images/a"},
		"{path: plain}":    {Path: "dir/plain"},
		`{path: /a, sha256: "` + strings.Repeat("0", 64) + `"}`: {Path: "/a", SHA256: strings.Repeat("0", 64)},
	} {
		r, err := Parse("dir/r.yaml", []byte("version: 1\nname: a\nbase: "+in+"\n"))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if d := cmp.Diff(want, r.Base, cmpopts.IgnoreTypes(Pos{})); d != "" {
			t.Errorf("%s: %s", in, d)
		}
	}
}

func TestDigest(t *testing.T) {
	digests := map[string]string{}
	for _, sets := range [][]Set{nil, {{"name", "a"}}, {{"name", "b"}}, {{"name", "a"}, {"name", "b"}}} {
		r, err := Parse("a.yaml", []byte(full), sets...)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := digests[r.Digest]; ok {
			t.Errorf("%v and %s have one digest", sets, other)
		}
		digests[r.Digest] = fmt.Sprint(sets)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "r.yaml")
	if _, err := Load(file); !os.IsNotExist(err) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(file, []byte("version: 1\nname: a\nbase: b.raw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Load(file, Set{"name", "other"})
	if err != nil {
		t.Fatal(err)
	}
	if r.Name != "other" || r.Base.Path != filepath.Join(dir, "b.raw") || r.Dir != dir {
		t.Errorf("%+v", r)
	}
	if r.File != file || r.Path != file {
		t.Errorf("File %s, Path %s, want %s for both", r.File, r.Path, file)
	}
}

func TestLoadKeepsTheNameAsWritten(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("r.yaml", []byte(head+"steps: [{}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Load("./r.yaml")
	if want := "./r.yaml:4:9: steps[0]: no kind: nothing says what to do"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if r.File != "./r.yaml" || r.Dir != "." || r.Path != filepath.Join(dir, "r.yaml") {
		t.Errorf("File %s, Dir %s, Path %s", r.File, r.Dir, r.Path)
	}
}

// TestLoadRefusesWhatIsNoFile: what could block, or never end, is not read.
func TestLoadRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := syscall.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("fifo", at("link")); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	large, err := os.Create(at("large"))
	if err != nil {
		t.Fatal(err)
	}
	defer large.Close()
	if err := large.Truncate(1 << 50); err != nil && large.Truncate(1<<40) != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		dir:          "a directory, not a recipe",
		at("fifo"):   "a pipe, not a recipe",
		at("link"):   "a pipe, not a recipe",
		at("socket"): "a socket, not a recipe",
		"/dev/zero":  "a device, not a recipe",
		at("large"):  "larger than 1 MiB: not a recipe",
	} {
		failed := make(chan error, 1)
		go func() {
			_, err := Load(file)
			failed <- err
		}()
		select {
		case err := <-failed:
			var ps Problems
			if !errors.As(err, &ps) || err.Error() != file+": "+want {
				t.Errorf("got %v, want %s: %s", err, file, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: still waiting", file)
		}
	}
}

// TestLoadOfADirectory names what was probably meant.
func TestLoadOfADirectory(t *testing.T) {
	dir := t.TempDir()
	hint := func() string {
		t.Helper()
		var ps Problems
		if _, err := Load(dir); !errors.As(err, &ps) || len(ps) != 1 {
			t.Fatalf("got %v, want one problem", err)
		}
		return ps[0].Hint
	}
	if got := hint(); got != "" {
		t.Errorf("hint %q, and there is no recipe in it", got)
	}
	for _, name := range []string{"a.yaml", "b.yml", "c.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := "did you mean " + dir + "/a.yaml or " + dir + "/b.yml?"; hint() != want {
		t.Errorf("hint %q, want %q", hint(), want)
	}
}

// TestLoadReadsNoMoreThanItTakes: some files do not say how long they are.
func TestLoadReadsNoMoreThanItTakes(t *testing.T) {
	if _, err := Load("/proc/kallsyms"); err == nil || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Errorf("got %v, want that it is too large", err)
	}
}

func TestExamples(t *testing.T) {
	files, err := fs.Glob(Examples(), "*.yaml")
	if err != nil || len(files) != 5 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		data, err := fs.ReadFile(Examples(), file)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Parse(file, data)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, s := range r.Steps {
			if s.Kind != "copy" {
				continue
			}
			var c struct {
				From string `yaml:"from"`
			}
			s.Options.Decode(&c) // says that the other options are unknown
			if _, err := fs.Stat(Examples(), filepath.Clean(c.From)); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}

// manySteps is a recipe of ordinary steps.
func manySteps(n int) []byte {
	var b strings.Builder
	b.WriteString("version: 1\nname: web\nbase: debian-12\nsteps:\n")
	for i := range n {
		switch i % 4 {
		case 0:
			fmt.Fprintf(&b, "  - packages: {install: [nginx-light, curl, package-%d], update: true}\n", i)
		case 1:
			fmt.Fprintf(&b, "  - name: step-%d\n    write:\n", i)
			fmt.Fprintf(&b, "      path: /etc/file-%d\n      mode: \"0644\"\n      content: |\n%s", i,
				strings.Repeat("        some line of a configuration file\n", 10))
		case 2:
			b.WriteString("  - run: |\n      apt-get clean # a comment\n      rm -rf /tmp/x\n")
		case 3:
			b.WriteString("  # why\n  - copy: {from: site/, to: /srv/www, owner: www-data:www-data}\n")
		}
	}
	return []byte(b.String())
}

func BenchmarkParse(b *testing.B) {
	data := manySteps(20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Parse("web.yaml", data); err != nil {
			b.Fatal(err)
		}
	}
}
