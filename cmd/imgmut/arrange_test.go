package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/fault"
)

// TestArrange: flags may be anywhere before "--".
func TestArrange(t *testing.T) {
	for line, want := range map[string]string{
		"":                                  "",
		"--json":                            "--json",
		"--help":                            "--help",
		"-v":                                "-v",
		"ls":                                "ls --",
		"ls --json":                         "--json ls --",
		"ls --help":                         "ls --help --",
		"ls -h":                             "ls -h --",
		"help ls":                           "help -- ls",
		"--json ls":                         "--json ls --",
		"-json ls":                          "-json ls --",
		"ls --json=false":                   "--json=false ls --",
		"apply a.yaml b.yaml":               "apply -- a.yaml b.yaml",
		"apply a.yaml --no-cache b.yaml":    "apply --no-cache -- a.yaml b.yaml",
		"apply a.yaml -o x --store s":       "--store s apply -o x -- a.yaml",
		"apply a.yaml --output=x":           "apply --output=x -- a.yaml",
		"--set ls=rm apply a.yaml":          "apply --set ls=rm -- a.yaml",
		"--store ls apply a.yaml":           "--store ls apply -- a.yaml",
		"apply --set name=x --set base=y a": "apply --set name=x --set base=y -- a",
		"apply --output --json a.yaml":      "apply --output --json -- a.yaml", // as getopt(3) has it
		"apply -- --json -x":                "apply -- --json -x",
		"apply a.yaml -- b.yaml --json":     "apply -- a.yaml b.yaml --json",
		"--json -- ls":                      "--json ls --",
		"import - name":                     "import -- - name",
		"rm help h":                         "rm -- help h",
		"inspect -- -h":                     "inspect -- -h",
	} {
		got, err := arrange(append([]string{"imgmut"}, strings.Fields(line)...))
		if want := append([]string{"imgmut"}, strings.Fields(want)...); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: arranged as %q (%v), want %q", line, got, err, want)
		}
	}
	if got, err := arrange([]string{"imgmut", "apply", "", "--set", "", "x y"}); err != nil ||
		!slices.Equal(got, []string{"imgmut", "apply", "--set", "", "--", "", "x y"}) {
		t.Errorf("empty words: %q, %v", got, err)
	}
}

// TestArrangeRefuses what it does not know, with what was probably meant.
func TestArrangeRefuses(t *testing.T) {
	for line, want := range map[string][2]string{ // in the error, in the hint
		"aply x":              {"no such command: aply", "did you mean apply?"},
		"lss":                 {"no such command: lss", "did you mean ls?"},
		"frobnicate":          {"no such command: frobnicate", "imgmut --help"},
		"web.yaml":            {"no such command: web.yaml", "imgmut apply web.yaml"},
		"-- aply":             {"no such command: aply", "did you mean apply?"},
		"apply --outptu x a":  {"no such flag of imgmut apply: --outptu", "did you mean --output?"},
		"apply --jsn a":       {"no such flag of imgmut apply: --jsn", "did you mean --json?"},
		"ls --output x":       {"no such flag of imgmut ls: --output", "a flag of imgmut apply"},
		"--output x":          {"no such flag of imgmut: --output", "a flag of imgmut apply"},
		"--frobnicate":        {"no such flag of imgmut: --frobnicate", "imgmut --help"},
		"ls -z":               {"no such flag of imgmut ls: -z", "imgmut ls --help"},
		"ls -=x":              {"no such flag of imgmut ls", ""},
		"apply a --set":       {"--set wants a value: PATH=VALUE", ""},
		"apply a --store":     {"--store wants a value: DIR", ""},
		"apply --version-x a": {"no such flag of imgmut apply: --version-x", ""},
	} {
		got, err := arrange(append([]string{"imgmut"}, strings.Fields(line)...))
		if fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), want[0]) {
			t.Errorf("%s: arranged as %q, error %v, want %q", line, got, err, want[0])
			continue
		}
		if hint := fault.Mend(err); !strings.Contains(hint, want[1]) {
			t.Errorf("%s: hint %q, want %q", line, hint, want[1])
		}
	}
}
