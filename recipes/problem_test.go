package recipes

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// lines are all problems as the command line would print them.
func lines(err error) []string {
	if err == nil {
		return nil
	}
	var out []string
	for _, p := range err.(Problems) {
		line := p.Error()
		if p.Hint != "" {
			line += " [" + p.Hint + "]"
		}
		out = append(out, line)
	}
	return out
}

const head = "version: 1\nname: a\nbase: b\n" // three lines, so that a test's own begin at the fourth

func TestProblems(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string
	}{
		{"empty", "", []string{"r.yaml:1:1: the recipe is empty"}},
		{"comment only", "# nothing\n", []string{"r.yaml:1:1: the recipe is empty"}},
		{"header only", "---\n", []string{"r.yaml:1:1: the recipe is empty"}},
		{"no mapping", "- a\n", []string{`r.yaml:1:1: want a mapping with version, name, base and steps, found a list`}},
		{"all missing", "steps: []\n", []string{
			"r.yaml:1:1: version: missing [write version: 1]", "r.yaml:1:1: name: missing", "r.yaml:1:1: base: missing"}},
		{"no steps", head, nil},
		{"empty steps", head + "steps:\nverify:\n", nil},
		{"version", "version: 2\nname: .\nnew: x\n", []string{
			"r.yaml:1:10: version: this is version 2 of the format; this program reads version 1"}},
		{"version text", "version: \"1\"\nname: a\nbase: b\n", []string{
			`r.yaml:1:10: version: want a whole number, found "1" [write it without quotes]`}},
		{"unknown key", head + "stepps: []\nzzz: 1\n", []string{
			"r.yaml:4:1: stepps: unknown key [did you mean steps?]", "r.yaml:5:1: zzz: unknown key"}},
		{"duplicate keys", head + "name: c\nsteps:\n  - run: {script: a, script: b}\n", []string{
			"r.yaml:4:1: name: duplicate key, first on line 2",
			"r.yaml:6:22: steps[0].run.script: duplicate key, first on line 6"}},
		{"wrong types", "version: 1\nname: 12\nbase: [a]\nsteps: x\nverify: {a: b}\nregister: true\n", []string{
			`r.yaml:2:7: name: want text, found the number 12 [quote it: "12"]`,
			"r.yaml:3:7: base: want a name, a path or a mapping, found a list",
			`r.yaml:4:8: steps: want a list, found "x"`,
			"r.yaml:5:9: verify: want a list, found a mapping",
			"r.yaml:6:11: register: want a mapping, found true"}},
		{"register", head + "register: {machined: yes, x: 1}\n", []string{
			`r.yaml:4:22: register.machined: want true or false, found "yes"`, "r.yaml:4:27: register.x: unknown key"}},
		{"identity", head + "identity: {filesystems: yes, machine: 1}\n", []string{
			`r.yaml:4:25: identity.filesystems: want true or false, found "yes"`, "r.yaml:4:30: identity.machine: unknown key"}},
		{"identity, what it says", head + "identity: {labels: \"{nam}-{label}\", types: new}\n", []string{
			`r.yaml:4:20: identity.labels: "{nam}-{label}": want letters, digits and . _ - with {name} and {label}, the image's and the base's`,
			`r.yaml:4:44: identity.types: "new": want keep [leave it out for the types by which systemd finds them]`}},
		{"identity, one label for all", head + "identity: {labels: \"{name}\"}\n", []string{
			`r.yaml:4:20: identity.labels: "{name}": want {label} in it, or two filesystems would have one label`}},
		{"identity, as it should be", head + "identity: {filesystems: true, labels: \"{label}-{name}.1\", types: keep}\n", nil},
		{"kinds", head + "steps:\n  - name: x\n  - run: a\n    write: b\n" +
			"  - run: a\n    netwrok: true\n  - text\n  -\n", []string{
			"r.yaml:5:5: steps[0]: no kind: nothing says what to do",
			"r.yaml:7:5: steps[1]: more than one kind: run, write " +
				"[an option stands in the braces of its kind, as in run: {script: …, write: b}; another kind is a step of its own]",
			"r.yaml:9:5: steps[2].netwrok: unknown key [did you mean network?]",
			`r.yaml:10:5: steps[3]: want a mapping with one kind, found "text"`,
			"r.yaml:11:4: steps[4]: want a mapping with one kind, found nothing"}},
		{"assertion kinds", head + "verify:\n  - {}\n  - {name: a, user: b}\n", []string{
			"r.yaml:5:5: verify[0]: no kind: nothing says what to do",
			"r.yaml:6:15: verify[1]: more than one kind: name, user"}},
		{"step options", head + "steps:\n  - run: a\n    network: no\n    max-age: 7\n" +
			"    name: \"a\\nb\"\n    env: {1A: x, B: 2, C: \"\\0\"}\n", []string{
			`r.yaml:6:14: steps[0].network: want true or false, found "no"`,
			"r.yaml:7:14: steps[0].max-age: want a duration such as 90s, 12h, 7d or 2w, found the number 7",
			`r.yaml:8:11: steps[0].name: "a\nb": want one line of at most 64 characters`,
			"r.yaml:9:11: steps[0].env.1A: want a name of letters, digits and _, the first no digit",
			`r.yaml:9:21: steps[0].env.B: want text, found the number 2 [quote it: "2"]`,
			"r.yaml:9:27: steps[0].env.C: the value holds a NUL character"}},
		{"timeout", head + "steps:\n  - {run: a, timeout: -3h}\n  - {run: a, timeout: 0s}\n", []string{
			`r.yaml:5:23: steps[0].timeout: "-3h": want a duration above zero`,
			`r.yaml:6:23: steps[1].timeout: "0s": want a duration above zero`}},
		{"max-age", head + "steps:\n  - {run: a, max-age: -3h}\n" +
			"  - {run: a, max-age: 0s}\n  - {run: a, max-age: soon}\n", []string{
			`r.yaml:5:23: steps[0].max-age: "-3h": want a duration above zero`,
			`r.yaml:6:23: steps[1].max-age: "0s": want a duration above zero`,
			`r.yaml:7:23: steps[2].max-age: "soon": want a duration such as 90s, 12h, 7d or 2w`}},
		{"keys that a terminal would obey", head + "\"a\\e[2J\": 1\nsteps:\n  - \"r\\nn\": x\n" +
			"  - env: {\"\\r\": x}\n    run: x\n  - {run: a, \"\\a\": b}\n", []string{
			`r.yaml:4:1: "a\x1b[2J": unknown key`,
			`r.yaml:7:11: steps[1].env."\r": want a name of letters, digits and _, the first no digit`,
			`r.yaml:9:14: steps[2]: more than one kind: run, "\a" ` +
				`[an option stands in the braces of its kind, as in run: {script: …, "\a": b}; another kind is a step of its own]`}},
		{"kinds, and which it is of is not known", head + "steps:\n  - copy: {from: a, to: /b}\n    mode: \"0600\"\n", []string{
			"r.yaml:6:5: steps[0]: more than one kind: copy, mode " +
				"[an option stands in the braces of its kind, as in run: {script: make, timeout: 5m}; another kind is a step of its own]"}},
		{"base mapping", "version: 1\nname: a\nbase: {sha256: abc, pth: x}\n", []string{
			"r.yaml:3:7: base.path: missing",
			`r.yaml:3:16: base.sha256: "abc": want 64 hexadecimal digits`,
			"r.yaml:3:21: base.pth: unknown key [did you mean path?]"}},
		{"base to fetch", "version: 1\nname: a\nbase: https://x.org/a.qcow2\n", []string{
			"r.yaml:3:7: base: nothing says what is to be fetched [base: {url: …, sha256: …}, or sums with the URL of its list of sums]",
		}},
		{"base by ftp", "version: 1\nname: a\nbase: {url: \"ftp://x.org/a.raw\", sums: \"http://x.org/SUMS\"}\n", []string{
			"r.yaml:3:13: base.url: ftp://x.org/a.raw: want a URL of http or https, or oci:HOST/NAME:TAG",
			"r.yaml:3:40: base.sums: everybody on the way can change it " +
				"[say with which keyring it is signed, as keyring: ./keys.gpg, or use https]",
		}},
		{"base with a password", "version: 1\nname: a\nbase: {url: \"https://me:secret@x.org/a.raw\", sha256: " +
			strings.Repeat("ab", 32) + "}\n", []string{
			"r.yaml:3:13: base.url: it has a user or a password, which would be kept with the base " +
				"[fetch it by hand, and name its path]",
		}},
		{"base of two", "version: 1\nname: a\nbase: {url: \"oci:x.org/a\", path: a.raw}\n", []string{
			"r.yaml:3:28: base.path: there is base.url as well, and only one of them can be the base",
		}},
		{"base with too much", "version: 1\nname: a\nbase:\n  url: oci:x.org/a@sha256:" + strings.Repeat("0", 64) +
			"\n  sums: https://x.org/SUMS\n  allow-backing: true\n", []string{
			"r.yaml:5:9: base.sums: what the file must be is said already",
			"r.yaml:6:18: base.allow-backing: nothing is beside what is fetched",
		}},
		{"base that is not fetched", "version: 1\nname: a\nbase:\n  path: a.raw\n  sums: https://x.org/SUMS\n" +
			"  keyring: k\n  max-age: 7d\n", []string{
			"r.yaml:5:3: base.sums: it is about what is fetched by base.url, and there is none",
			"r.yaml:6:3: base.keyring: it is about what is fetched by base.url, and there is none",
			"r.yaml:7:3: base.max-age: it is about what is fetched by base.url, and there is none",
		}},
		{"base with a path that is none", "version: 1\nname: a\nbase: {path: \"https://x.org/a.raw\"}\n", []string{
			`r.yaml:3:14: base.path: "https://x.org/a.raw" is a URL [write url: for path:]`,
		}},
		{"base name", "version: 1\nname: a\nbase: a b\n", []string{
			`r.yaml:3:7: base: "a b": want at most 64 letters, digits and . _ -, the first a letter or a digit ` +
				`[a file beside the recipe is written ./NAME]`}},
		{"base empty", "version: 1\nname: a\nbase: {path: \"\"}\n", []string{`r.yaml:3:14: base.path: "" is no path`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse("r.yaml", []byte(test.in))
			if d := cmp.Diff(test.want, lines(err)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestImageNames(t *testing.T) {
	long := strings.Repeat("a", 65)
	const rule = "want at most 64 letters, digits and . _ -, the first a letter or a digit"
	for name, want := range map[string]string{
		"web": "", "Web-1.2_x": "", "0a": "", long[:64]: "",
		`""`:     `"": ` + rule,
		"../x":   `"../x": ` + rule,
		".x":     `".x": ` + rule,
		"a/b":    `"a/b": ` + rule,
		long:     `"` + long[:60] + `…": ` + rule,
		"ünder":  `"ünder": ` + rule,
		"a.raw":  `"a.raw": a name, not a file: want it without .raw`,
		`"a\nb"`: `"a\nb": ` + rule,
	} {
		_, err := Parse("r.yaml", []byte("version: 1\nname: "+name+"\nbase: b\n"))
		got := strings.Join(lines(err), "\n")
		if want != "" {
			want = "r.yaml:2:7: name: " + want
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	for word, want := range map[string]string{
		"nmae": "name", "names": "name", "Name": "name", "pth": "path", "x": "", "": "",
		"content": "", "conetnt": "", "owenr": "owner", strings.Repeat("name", 20): "",
	} {
		if want != "" {
			want = "did you mean " + want + "?"
		}
		if got := didYouMean(word, []string{"name", "path", "owner", "a"}); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}

func TestProblemsOrder(t *testing.T) {
	ps := Problems{{File: "--set a", Path: "a", Message: "3"}, {File: "f", Line: 2, Col: 1, Message: "2"},
		{File: "f", Line: 1, Col: 9, Path: "x", Message: "1"}}
	if want := "f:1:9: x: 1\nf:2:1: 2\n--set a: 3"; ps.Error() != want {
		t.Errorf("got %q, want %q", ps.Error(), want)
	}
}
