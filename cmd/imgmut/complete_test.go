package main

import (
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/recipes"
)

// These tests walk the lists that imgmut is made of, and find by themselves
// what is incomplete about an entry: one that is new, or one that is old and
// changed.

// TestCommandsAreComplete: each says all there is to say of it, in the form of
// the others.
func TestCommandsAreComplete(t *testing.T) {
	known := map[string]string{} // flags, and the command that has them
	takes := map[string]bool{}
	for _, f := range slices.Concat(globals, builtin) {
		known[f.name], known[f.short] = "all commands", "all commands"
	}
	names := map[string]bool{}
	for _, c := range commands {
		if names[c.name] || c.name == "" {
			t.Errorf("two commands are called %q", c.name)
		}
		names[c.name] = true
		if !slices.Contains(groups, c.group) {
			t.Errorf("%s: there is no group %q", c.name, c.group)
		}
		if c.run == nil {
			t.Errorf("%s does nothing", c.name)
		}
		if s := c.summary; s == "" || len(s) > 60 || strings.HasSuffix(s, ".") || strings.ToLower(s[:1]) != s[:1] {
			t.Errorf("%s: the summary is no short line without a period: %q", c.name, s)
		}
		for line := range strings.Lines(c.text) {
			if len([]rune(strings.TrimSpace(line))) > 90 {
				t.Errorf("%s: too long a line in the text: %s", c.name, line)
			}
		}
		if !slices.ContainsFunc(c.examples, func(e string) bool { return strings.Contains(e, "imgmut "+c.name) }) {
			t.Errorf("%s has no example", c.name)
		}
		for _, class := range c.faults {
			if !slices.ContainsFunc(statuses, func(s status) bool { return s.class == class && !s.everywhere }) {
				t.Errorf("%s: no status is that of the fault %q, or every command can end with it", c.name, class)
			}
		}
		for _, f := range c.flags {
			if f.name == "" || f.help == "" || strings.HasSuffix(f.help, ".") {
				t.Errorf("%s: the flag --%s has no help without a period: %q", c.name, f.name, f.help)
			}
			for _, name := range []string{f.name, f.short} {
				if other := known[name]; name != "" && other == "all commands" {
					t.Errorf("%s: the flag %s is one of %s", c.name, name, other)
				}
				// Or nobody could say what a word behind it is, before the command.
				if value, ok := takes[name]; name != "" && ok && value != (f.value != "") {
					t.Errorf("the flag %s takes a value in one command and none in another", name)
				}
				takes[name] = f.value != ""
			}
		}
	}
}

// TestStatusesAreComplete: each class of errors has one, and each but that of
// the unexpected is claimed by a command.
func TestStatusesAreComplete(t *testing.T) {
	for _, class := range []fault.Class{
		fault.Interrupted, fault.Usage, fault.Recipe, fault.Host, fault.Step, fault.Verdict, fault.Image, fault.NotFound,
	} {
		if exitStatus(fault.New(class, "", "x")) == exitUnexpected {
			t.Errorf("an error of class %q has no exit status of its own", class)
		}
	}
	codes := map[int]bool{}
	for _, s := range statuses {
		if codes[s.code] || s.meaning == "" {
			t.Errorf("status %d is twice there, or means nothing", s.code)
		}
		codes[s.code] = true
		if !slices.ContainsFunc(commands, func(c *spec) bool { return slices.Contains(c.statuses(), s) }) {
			t.Errorf("no command ends with status %d", s.code)
		}
	}
}

// played is what the scripts in testdata/script do: which command ends with
// which status.
func played(t *testing.T) map[string]map[int]bool {
	t.Helper()
	all := map[string]map[int]bool{}
	for _, c := range commands {
		all[c.name] = map[int]bool{}
	}
	for _, line := range scriptLines(t) {
		words := strings.Fields(line)
		at := slices.Index(words, "imgmut")
		if at < 0 || at+1 >= len(words) || words[0] != "exit" && words[0] != "interrupt" {
			continue
		}
		code := 0
		if fmt.Sscan(words[map[string]int{"exit": 1, "interrupt": 2}[words[0]]], &code); code < 0 {
			continue // ended by a signal
		}
		if c, err := findCommand(words[at+1:]); err == nil && c != nil {
			all[c.name][code] = true
		}
	}
	return all
}

func scriptLines(t *testing.T) (lines []string) {
	t.Helper()
	scripts, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range scripts {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.Split(string(b), "\n")...)
	}
	return lines
}

// TestEveryStatusIsPlayed: a command ends with the statuses that its help has
// and with no other, and a script shows each.
func TestEveryStatusIsPlayed(t *testing.T) {
	interrupted := false
	for name, codes := range played(t) {
		c := commands[slices.IndexFunc(commands, named(name))]
		claimed := map[int]bool{}
		for _, s := range c.statuses() {
			claimed[s.code] = true
			switch s.code {
			case exitUnexpected:
			case exitInterrupted:
				interrupted = interrupted || codes[s.code]
			default:
				if !codes[s.code] {
					t.Errorf("no script has imgmut %s end with status %d", name, s.code)
				}
			}
		}
		for code := range codes {
			if !claimed[code] {
				t.Errorf("imgmut %s ends with status %d in a script, which its help does not have", name, code)
			}
		}
	}
	if !interrupted {
		t.Error("no script interrupts anything")
	}
}

// TestKindsAreComplete: README and a script have each kind of step and of
// assertion, and a script has an assertion of each kind that does not hold.
func TestKindsAreComplete(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme, scripts := string(b), strings.Join(scriptLines(t), "\n")
	failing, err := os.ReadFile("testdata/script/assertions.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for list, shown := range map[string][]string{
		"steps": {readme, scripts}, "verify": {readme, scripts, string(failing)},
	} {
		kinds := kindsOf(t, list)
		if len(kinds) < 5 {
			t.Errorf("only %q are kinds of %s", kinds, list)
		}
		for _, kind := range kinds {
			for i, text := range shown {
				forms := []string{"`" + kind + "`", "- " + kind + ":", "- {" + kind + ":"}
				if !slices.ContainsFunc(forms, func(form string) bool { return strings.Contains(text, form) }) {
					t.Errorf("%s: %s is not in %s", list, kind, []string{"README.md", "a script", "assertions.txtar"}[i])
				}
			}
		}
	}
}

// kindsOf are the kinds that a list of a recipe knows, as a mistake in it is
// answered.
func kindsOf(t *testing.T, list string) []string {
	t.Helper()
	text := "version: 1\nname: x\nbase: x\nsteps: []\n"
	if list == "steps" {
		text = "version: 1\nname: x\nbase: x\nsteps:\n  - frobnicate: x\n"
	} else {
		text += list + ":\n  - frobnicate: x\n"
	}
	r, err := recipes.Parse("x", []byte(text))
	if err == nil {
		err = mutate.Check(r)
	}
	_, names, ok := strings.Cut(fmt.Sprint(err), "(there are ")
	names, _, ended := strings.Cut(names, ")")
	if !ok || !ended {
		t.Fatalf("%s: the kinds are not listed: %v", list, err)
	}
	return strings.Split(names, ", ")
}

// TestOneFileKnowsTheParser of the command line, so that it can be replaced.
func TestOneFileKnowsTheParser(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			if strings.Contains(i.Path.Value, "urfave/cli") && file != "cli.go" {
				t.Errorf("%s imports %s", file, i.Path.Value)
			}
		}
	}
}

// TestManual: man(1) has nothing to complain about, and finds all commands.
func TestManual(t *testing.T) {
	var b bytes.Buffer
	s := &session{commands: commands}
	r, err := manCommand.run(t.Context(), s, args{})
	if err != nil {
		t.Fatal(err)
	}
	r.Text(&b)
	if !strings.HasPrefix(b.String(), ".nh\n.TH imgmut 8 ") {
		t.Errorf("it begins with %.40q", b.String())
	}
	for _, c := range commands {
		if !strings.Contains(b.String(), "imgmut "+c.name) {
			t.Errorf("it has no command %s", c.name)
		}
	}
	text, complaints := formatted(t, b.String())
	if complaints != "" {
		t.Errorf("complaints: %s", complaints)
	}
	for _, want := range []string{
		"NAME\n       imgmut - build disk images", "--keep-failed\n", "[FLAG …]", "EXIT STATUS\n       0      done",
		"in nanoseconds", "SOURCE_DATE_EPOCH\n", "in place of --source-date-epoch of apply",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not have %q:\n%s", want, text)
		}
	}
}

// formatted is a manual page as a terminal shows it, without its bold letters,
// and what the formatter found wrong with it.
func formatted(t *testing.T, roff string) (text, complaints string) {
	t.Helper()
	fixtures.Require(t, fixtures.Tools)
	cmd := exec.Command("groff", "-k", "-man", "-Tutf8", "-ww", "-P-c", "-P-b", "-P-o", "-P-u")
	cmd.Stdin = strings.NewReader(roff)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, &errs)
	}
	return out.String(), errs.String()
}
