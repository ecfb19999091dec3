package main

import (
	"bytes"
	"encoding/json"
	goflag "flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/fixtures"
)

var update = goflag.Bool("update", false, "rewrite testdata/golden (just golden)")

// shop is a directory as the examples and goldens have it: a base and recipes.
func shop(t *testing.T) (*lab, string) {
	t.Helper()
	l := newLab(t)
	dir := t.TempDir()
	base := filepath.Join(filepath.Dir(l.store), "debian-12.raw")
	fixtures.Clone(t, fixtures.Image(t, "debian-12"), base)
	if err := os.Symlink(base, filepath.Join(dir, "debian-12.raw")); err != nil {
		t.Fatal(err)
	}
	web := "version: 1\nname: web\nbase: debian-12\nsteps:\n" +
		"  - {name: site, copy: {from: site, to: /srv/www}}\n  - run: echo hello\n"
	for name, text := range map[string]string{
		"web.yaml": web, "recipe.yaml": web, "site/index.html": "<p>\n",
		"db.yaml":    strings.Replace(web, "name: web", "name: db", 1),
		"bad.yaml":   "version: 1\nname: bad\nbase: debian-12\nsteps:\n  - rnu: x\n  - write: {path: /x, mod: \"0644\"}\n",
		"fails.yaml": "version: 1\nname: fails\nbase: debian-12\nsteps:\n  - run: echo about to fail; exit 3\n",
		"unmet.yaml": "version: 1\nname: unmet\nbase: debian-12\nsteps: []\nverify:\n  - file: /nothing\n",
		"asserts.yaml": strings.Replace(web, "name: web", "name: asserts", 1) +
			"verify:\n  - file: {path: /srv/www/index.html, mode: \"0644\"}\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return l, dir
}

// goldens are command lines, what they end with, and the file in
// testdata/golden that has their JSON: standard output, or standard error of
// what fails. They run in this order.
var goldens = []struct {
	file, line string
	status     int
}{
	{"import", "import debian-12.raw debian-12", exitDone},
	{"apply", "apply asserts.yaml", exitDone},
	{"apply-events", "apply web.yaml --no-cache --progress json", exitDone},
	{"apply-invalid", "apply bad.yaml", exitRecipe},
	{"apply-failed", "apply fails.yaml", exitStep},
	{"apply-unmet", "apply unmet.yaml", exitVerify},
	{"apply-usage", "apply", exitUsage},
	{"ls", "ls", exitDone},
	{"inspect-image", "inspect asserts", exitDone},
	{"inspect-base", "inspect debian-12", exitDone},
	{"inspect-nothing", "inspect nothing", exitNotFound},
	{"verify", "verify asserts", exitDone},
	{"rm", "rm asserts web", exitDone},
	{"gc-dry-run", "gc --dry-run", exitDone},
	{"gc", "gc", exitDone},
	{"doctor", "doctor", exitDone},
	{"doctor-image", "doctor debian-12.raw", exitDone},
	{"version", "version", exitDone},
	{"", "help apply", exitDone}, // a text as a whole
	{"", "man", exitDone},
	{"", "completion bash", exitDone},
	{"", "completion zsh", exitDone},
	{"", "completion fish", exitDone},
}

// TestGoldenJSON: programs read what --json prints, so a change of it is seen
// here first. What differs from run to run is put into one form.
func TestGoldenJSON(t *testing.T) {
	l, dir := shop(t)
	seen := map[string]bool{}
	for _, g := range goldens {
		words := strings.Fields(g.line)
		seen[words[0]] = true
		cmd := l.command(append(words, "--json")...)
		cmd.Dir = dir
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); cmd.ProcessState.ExitCode() != g.status {
			t.Fatalf("%s: %v, want status %d\n%s", g.line, err, g.status, &errs)
		}
		printed := out.String()
		switch {
		case g.file == "apply-events":
			printed = errs.String()
		case g.status != exitDone:
			lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
			printed = lines[len(lines)-1] // after the progress
		}
		paths := map[string]string{l.store: "STORE", dir: "DIR", filepath.Dir(l.store): "ELSEWHERE"}
		got := canonical(t, g.file, printed, paths)
		if g.file == "" {
			continue
		}
		file := filepath.Join("testdata/golden", g.file+".json")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s: -%s +what it prints (just golden rewrites it):\n%s", g.line, file, diff)
		}
	}
	for _, c := range commands {
		if !seen[c.name] {
			t.Errorf("there is no golden of imgmut %s", c.name)
		}
	}
}

// counted are the numbers that are the same in every run.
var counted = []string{"version", "step", "steps", "reused", "status", "line", "col", "number", "uid", "gid"}

var forms = []struct {
	printed *regexp.Regexp
	form    string
}{
	{regexp.MustCompile(`(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), "UUID"},
	{regexp.MustCompile(`\b[0-9A-F]{4}-[0-9A-F]{4}\b`), "UUID"},
	{regexp.MustCompile(`\b([0-9a-f]{64}|[0-9a-f]{32})\b`), "DIGEST"},
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\dT[0-9:.]+Z\b`), "TIME"},
}

// canonical is JSON, one value a line, in the form of a golden: indented, with
// what differs from run to run replaced.
func canonical(t *testing.T, name, printed string, paths map[string]string) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(printed) {
		var v any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%s: %v in:\n%s", name, err, line)
		}
		if list, ok := v.([]any); ok && name == "doctor" {
			v = list[:1] // the others are about this machine
		}
		if event, ok := v.(map[string]any); ok && event["event"] == "progress" {
			continue // how many there are is a matter of time
		}
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(sameEachTime("", v, paths)); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func sameEachTime(key string, v any, paths map[string]string) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = sameEachTime(k, v[k], paths)
		}
	case []any:
		for i := range v {
			v[i] = sameEachTime(key, v[i], paths)
		}
	case float64:
		if !slices.Contains(counted, key) {
			return 0
		}
	case string:
		if slices.Contains([]string{"version", "imgmut", "go", "arch", "found", "source"}, key) {
			return strings.ToUpper(key)
		}
		for path, form := range paths {
			if form != "ELSEWHERE" { // which begins the others
				v = strings.ReplaceAll(v, path, form)
			}
		}
		for path := range paths {
			v = strings.ReplaceAll(v, path, "ELSEWHERE")
		}
		for _, f := range forms {
			v = f.printed.ReplaceAllString(v, f.form)
		}
		return v
	}
	return v
}

// TestExamplesRun: what the manual page shows works, line for line.
func TestExamplesRun(t *testing.T) {
	l, dir := shop(t)
	fixtures.Program(t, "", "qemu-img", "convert", "-O", "qcow2", filepath.Join(dir, "debian-12.raw"),
		filepath.Join(dir, "noble-server-cloudimg-amd64.img"))
	bin := filepath.Dir(l.command().Path)
	sh := func(line string) {
		t.Helper()
		cmd := exec.Command("bash", "-euc", line)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "IMGMUT_STORE="+l.store)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	for _, c := range commands {
		// Some of them remove what others need.
		sh("imgmut import debian-12.raw debian-12 && imgmut apply web.yaml")
		for _, example := range c.examples {
			sh(example)
		}
		if _, errs := l.run(exitUsage, c.name, "--frobnicate"); !strings.Contains(errs, "no such flag") {
			t.Errorf("imgmut %s --frobnicate: %s", c.name, errs)
		}
		want := c.help()
		if c == helpCommand { // the library has its own idea of that one
			want = help(commands)
		}
		if out, _ := l.run(exitDone, c.name, "--help"); out != want {
			t.Errorf("imgmut %s --help prints:\n%s", c.name, out)
		}
	}
	l.wantClean()
}
