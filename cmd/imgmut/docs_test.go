package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/step"
	"github.com/imgmut/imgmut/recipes"
)

// TestDocumentedRecipes: every recipe that people are shown is one.
func TestDocumentedRecipes(t *testing.T) {
	shown := map[string]string{}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, block := range strings.Split(string(readme), "```yaml\n")[1:] {
		text, _, _ := strings.Cut(block, "```")
		shown["README.md block "+string(rune('1'+i))] = text
	}
	examples, err := fs.Glob(recipes.Examples(), "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range examples {
		text, err := fs.ReadFile(recipes.Examples(), name)
		if err != nil {
			t.Fatal(err)
		}
		shown[name] = string(text)
	}
	for _, k := range step.Kinds() {
		shown["example of "+k.Name] = "version: 1\nname: x\nbase: debian-12\nsteps:" + k.Example
		if !strings.Contains(string(readme), "| `"+k.Name+"` |") {
			t.Errorf("README.md does not list the step kind %s", k.Name)
		}
	}
	if len(shown) < 8 {
		t.Errorf("only %d recipes are shown", len(shown))
	}
	for name, text := range shown {
		r, err := recipes.Parse(name, []byte(text))
		if err == nil {
			err = mutate.Check(r)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDocumentedStatuses: README lists the exit statuses that there are.
func TestDocumentedStatuses(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ToLower(strings.Join(strings.Fields(string(readme)), " "))
	for _, s := range statuses {
		meaning, _, _ := strings.Cut(s.meaning, ":")
		meaning, _, _ = strings.Cut(meaning, " (")
		if !strings.Contains(text, fmt.Sprintf("%d %s", s.code, meaning)) {
			t.Errorf("README.md does not say %d %s", s.code, meaning)
		}
	}
}

// TestDocumentedTests: the pages for those who change imgmut, or trust it, name
// tests that there are.
func TestDocumentedTests(t *testing.T) {
	var code strings.Builder
	err := filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			var b []byte
			b, err = os.ReadFile(path)
			code.Write(b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"CONTRIBUTING.md", "SECURITY.md"} {
		b, err := os.ReadFile("../../.github/" + page)
		if err != nil {
			t.Fatal(err)
		}
		named := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*|\\w+\\.txtar)`").FindAllStringSubmatch(string(b), -1)
		if len(named) == 0 {
			t.Errorf("%s names no test", page)
		}
		for _, m := range named {
			_, err := os.Stat("testdata/script/" + m[1])
			if err != nil && !strings.Contains(code.String(), "\nfunc "+m[1]+"(") {
				t.Errorf("%s names %s, which is no test", page, m[1])
			}
		}
	}
}

// TestDocumentedCommands: README lists the commands that there are, with what
// their help says of them, and all flags of all commands.
func TestDocumentedCommands(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(b)
	var rows []string
	for _, c := range commands {
		usage := strings.TrimSpace(c.name + " " + strings.ReplaceAll(c.args, "|", `\|`))
		rows = append(rows, fmt.Sprintf("| `%s` | %s |", usage, c.summary))
	}
	if want := strings.Join(rows, "\n"); !strings.Contains(readme, want+"\n\n") {
		t.Errorf("README.md does not have these rows:\n%s", want)
	}
	for _, f := range globals {
		if !strings.Contains(readme, "`--"+f.name) {
			t.Errorf("README.md does not have the flag --%s", f.name)
		}
	}
}
