package recipes

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// everything has a field of each type that Decode knows.
type everything struct {
	Text    string            `yaml:"text"`
	Pointer *string           `yaml:"pointer"`
	Bool    bool              `yaml:"bool"`
	BoolP   *bool             `yaml:"bool-pointer"`
	Int     int               `yaml:"int"`
	Time    Duration          `yaml:"time"`
	List    []string          `yaml:"list"`
	Map     map[string]string `yaml:"map"`
	Nested  struct {
		A string `yaml:"a"`
	} `yaml:"nested"`
	NestedP  *short `yaml:"nested-pointer"`
	Untagged string
	Skipped  string `yaml:"-"`
}

// short has both short forms.
type short struct {
	Script string   `yaml:"script"`
	Argv   []string `yaml:"argv"`
}

func (s *short) FromScalar(text string) error {
	if text == "bad" {
		return errors.New("is bad")
	}
	s.Script = text
	return nil
}

func (s *short) FromList(l []string) error {
	if len(l) == 0 {
		return errors.New("is empty")
	}
	s.Argv = l
	return nil
}

// choice is all, or some.
type choice struct {
	All   bool
	Names []string
}

func (c *choice) FromBool(all bool) error       { c.All = all; return nil }
func (c *choice) FromList(names []string) error { c.Names = names; return nil }

func TestDecodeBoolForm(t *testing.T) {
	for in, want := range map[string]choice{
		"{which: true}": {All: true}, "{which: false}": {}, "{which: [a]}": {Names: []string{"a"}}, "{}": {},
	} {
		var got struct {
			Which choice `yaml:"which"`
		}
		if _, ps := decode(t, in, &got); len(ps) > 0 || !cmp.Equal(got.Which, want) {
			t.Errorf("%s: %+v, %v; want %+v", in, got.Which, ps, want)
		}
	}
	var got struct {
		Which choice `yaml:"which"`
	}
	_, ps := decode(t, "{which: 1}", &got)
	const want = `r.yaml:5:19: steps[0].kind.which: want true or false, a list or a mapping, found the number 1`
	if len(ps) != 1 || ps[0].Error() != want {
		t.Errorf("%v, want %s", ps, want)
	}
	if _, ps := decode(t, "{}", &got, Set{Path: "steps[0].kind.which", Value: "true"}); len(ps) > 0 || !got.Which.All {
		t.Errorf("--set: %+v, %v", got.Which, ps)
	}
}

// decode decodes the options of a recipe's only step.
func decode(t *testing.T, options string, into any, sets ...Set) (Options, Problems) {
	t.Helper()
	r, err := Parse("r.yaml", []byte(head+"steps:\n  - kind: "+options+"\n"), sets...)
	if err != nil {
		t.Fatalf("%s: %v", options, err)
	}
	return r.Steps[0].Options, r.Steps[0].Options.Decode(into)
}

func TestDecode(t *testing.T) {
	var got everything
	_, ps := decode(t, `{text: a, pointer: b, bool: true, bool-pointer: false, int: -7, time: 1h, list: [x, "1"],
      map: {k: v}, nested: {a: c}, nested-pointer: d}`, &got)
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	b, no := "b", false
	want := everything{Text: "a", Pointer: &b, Bool: true, BoolP: &no, Int: -7, Time: Duration(time.Hour),
		List: []string{"x", "1"}, Map: map[string]string{"k": "v"}, NestedP: &short{Script: "d"}}
	want.Nested.A = "c"
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestDecodeProblems(t *testing.T) {
	for in, want := range map[string][]string{
		"{txt: a, Untagged: b, -: c, list: [1, true, ~, [a], {b: c}]}": {
			"r.yaml:5:12: steps[0].kind.txt: unknown key [did you mean text?]",
			"r.yaml:5:20: steps[0].kind.Untagged: unknown key",
			"r.yaml:5:33: steps[0].kind.-: unknown key",
			`r.yaml:5:46: steps[0].kind.list[0]: want text, found the number 1 [quote it: "1"]`,
			`r.yaml:5:49: steps[0].kind.list[1]: want text, found true [quote it: "true"]`,
			"r.yaml:5:55: steps[0].kind.list[2]: want text, found nothing",
			"r.yaml:5:58: steps[0].kind.list[3]: want text, found a list",
			"r.yaml:5:63: steps[0].kind.list[4]: want text, found a mapping"},
		"\n      text: 0644\n      pointer:\n      bool: \"true\"\n      int: 1.5\n      map: [a]": {
			`r.yaml:6:13: steps[0].kind.text: want text, found the number 0644 [quote it: "0644"]`,
			"r.yaml:7:15: steps[0].kind.pointer: want text, found nothing",
			`r.yaml:8:13: steps[0].kind.bool: want true or false, found "true" [write it without quotes]`,
			"r.yaml:9:12: steps[0].kind.int: want a whole number, found the number 1.5",
			"r.yaml:10:12: steps[0].kind.map: want a mapping, found a list"},
		"{list: a, nested: b, nested-pointer: 5, time: [x]}": {
			`r.yaml:5:18: steps[0].kind.list: want a list, found "a" [put it in brackets]`,
			`r.yaml:5:29: steps[0].kind.nested: want a mapping, found "b"`,
			`r.yaml:5:48: steps[0].kind.nested-pointer: want text, a list or a mapping, found the number 5 [quote it: "5"]`,
			"r.yaml:5:57: steps[0].kind.time: want a duration such as 90s, 12h, 7d or 2w, found a list"},
		"{nested-pointer: bad, nested: {b: x}}": {
			"r.yaml:5:28: steps[0].kind.nested-pointer: is bad",
			"r.yaml:5:42: steps[0].kind.nested.b: unknown key"},
		"{nested-pointer: [], nested: [a]}": {
			"r.yaml:5:28: steps[0].kind.nested-pointer: is empty",
			"r.yaml:5:40: steps[0].kind.nested: want a mapping, found a list"},
		"{nested-pointer: [a, 5]}": {
			`r.yaml:5:32: steps[0].kind.nested-pointer[1]: want text, found the number 5 [quote it: "5"]`},
		"{network: true, nested: {max-age: 1d}}": {
			"r.yaml:5:12: steps[0].kind.network: unknown key [network is a key of the step: write it one level up, beside the kind]",
			"r.yaml:5:36: steps[0].kind.nested.max-age: unknown key " +
				"[max-age is a key of the step: write it one level up, beside the kind]"},
		"a text": {`r.yaml:5:11: steps[0].kind: want a mapping, found "a text"`},
		"":       nil,
	} {
		_, ps := decode(t, in, new(everything))
		var err error
		if ps != nil {
			err = ps
		}
		if d := cmp.Diff(want, lines(err)); d != "" {
			t.Errorf("%s: %s", in, d)
		}
	}
}

func TestShortForms(t *testing.T) {
	for in, want := range map[string]short{
		"apt-get clean":                {Script: "apt-get clean"},
		"|\n      a\n      b":          {Script: "a\nb\n"},
		"[apt-get, clean]":             {Argv: []string{"apt-get", "clean"}},
		"{script: x}":                  {Script: "x"},
		"\n    - apt-get\n    - \"1\"": {Argv: []string{"apt-get", "1"}},
	} {
		var got short
		if _, ps := decode(t, in, &got); len(ps) > 0 {
			t.Errorf("%s: %v", in, ps)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", in, d)
		}
	}
}

func TestOptionsProblem(t *testing.T) {
	const block = "\n      text: a\n      list: [x, y]"
	for _, test := range []struct{ in, field, want string }{
		{block, "text", "r.yaml:6:13: steps[0].kind.text: 100% bad"},
		{block, "list[1]", "r.yaml:7:17: steps[0].kind.list[1]: 100% bad"},
		{block, "list[2]", "r.yaml:5:5: steps[0].kind.list[2]: 100% bad"},
		{block, "mode", "r.yaml:5:5: steps[0].kind.mode: 100% bad"},
		{block, "", "r.yaml:5:5: steps[0].kind: 100% bad"},
		{"short", "script", "r.yaml:5:5: steps[0].kind: 100% bad"},
	} {
		o, _ := decode(t, test.in, new(short))
		if got := o.Problem(test.field, "%d%% bad", 100).Error(); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.field, got, test.want)
		}
	}
	if got := (Options{}).Problem("a", "b").Error(); got != ": b" {
		t.Errorf("zero options: %q", got)
	}
}

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for in, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "1.5h": 90 * time.Minute, "7d": 7 * day, "2w": 14 * day,
		"1w2d12h": 9*day + 12*time.Hour, "0d": 0, "-3h": -3 * time.Hour, "106751d": 106751 * day,
	} {
		if got, err := ParseDuration(in); err != nil || got.Duration() != want {
			t.Errorf("%s: got %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "7", "d", "1d2w", "-1d", "1d-1h", "1.5d", "soon", "106752d",
		"99999999999999999999w", "106751d48h", "1d 1h"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("%q: got %v, want an error", in, got)
		}
	}
}

func TestSet(t *testing.T) {
	const recipe = head + "steps:\n  - write: {path: /a, content: b}\n  - run: [a]\n  - run: x\n    env: {A: x}\n    name: my step.2\n"
	content := func(r *Recipe) string {
		var w struct {
			Path    string `yaml:"path"`
			Content string `yaml:"content"`
		}
		if ps := r.Steps[0].Options.Decode(&w); len(ps) > 0 {
			return ps.Error()
		}
		return w.Content
	}
	run := func(r *Recipe) short {
		var s short
		if ps := r.Steps[1].Options.Decode(&s); len(ps) > 0 {
			s.Script = ps.Error()
		}
		return s
	}
	for set, check := range map[string]func(r *Recipe) bool{
		"name=true":              func(r *Recipe) bool { return r.Name == "true" },
		"base=./x=y.raw":         func(r *Recipe) bool { return r.Base.Path == "x=y.raw" && r.Base.Name == "" },
		"register.machined=true": func(r *Recipe) bool { return r.Register.Machined },
		"steps[0].network=false": func(r *Recipe) bool {
			return r.Steps[0].Network != nil && !*r.Steps[0].Network
		},
		"steps[0].max-age=2d":               func(r *Recipe) bool { return r.Steps[0].MaxAge == 48*time.Hour },
		"steps[2].env.A=0644":               func(r *Recipe) bool { return r.Steps[2].Env["A"] == "0644" },
		"steps[0].env.B=":                   func(r *Recipe) bool { v, ok := r.Steps[0].Env["B"]; return ok && v == "" },
		"steps[0].write.content=a: \"b\"\n": func(r *Recipe) bool { return content(r) == "a: \"b\"\n" },
		"steps[my step.2].env.A=y":          func(r *Recipe) bool { return r.Steps[2].Env["A"] == "y" },
		"steps[1].run=echo":                 func(r *Recipe) bool { return run(r).Script == "echo" },
		"steps[1].run[0]=echo":              func(r *Recipe) bool { return slices.Equal(run(r).Argv, []string{"echo"}) },
	} {
		s, err := ParseSet(set)
		if err != nil {
			t.Errorf("%s: %v", set, err)
			continue
		}
		if r, err := Parse("r.yaml", []byte(recipe), s); err != nil || !check(r) {
			t.Errorf("%s: %+v, %v", set, r, err)
		}
	}
}

func TestSetProblems(t *testing.T) {
	const recipe = head + "steps:\n  - {name: a, write: {path: /a}}\n  - run: [a]\n" +
		"  - {name: b, run: [a]}\n  - {name: b, run: [a]}\n"
	for set, want := range map[string][]string{
		"name=": {
			`--set name: "": want at most 64 letters, digits and . _ -, the first a letter or a digit`},
		"nmae=x":                  {"--set nmae: unknown key [did you mean name?]"},
		"register.machine=true":   {"--set register.machine: unknown key [did you mean machined?]"},
		"register.machined=5":     {`--set register.machined: want true or false, found "5"`},
		"steps[4].run=x":          {"--set steps[4].run: steps ends at steps[3]"},
		"steps[c].run=x":          {"--set steps[c].run: nothing in steps has the name c"},
		"steps[b].run=x":          {"--set steps[b].run: several have the name b: say which, steps[2] or steps[3]"},
		"steps[a].write.path.x=y": {`--set steps[a].write.path.x: steps[a].write.path is "/a", not a mapping`},
		"steps[a].nmae=x":         {"--set steps[a].nmae: steps[0].nmae: unknown key [did you mean name?]"},
		"steps.run=x":             {"--set steps.run: steps is a list, not a mapping"},
		"verify[0].user=x":        {"--set verify[0].user: verify is nothing, not a list"},
		"steps[0].write.path.x=y": {`--set steps[0].write.path.x: steps[0].write.path is "/a", not a mapping`},
		"name[0]=y":               {`--set name[0]: name is "a", not a list`},
		"steps[0].wirte=x": {"--set steps[0].wirte: steps[0]: more than one kind: write, wirte " +
			"[an option stands in the braces of its kind, as in run: {script: make, timeout: 5m}; another kind is a step of its own]"},
		"steps[1].max-age=x": {`--set steps[1].max-age: "x": want a duration such as 90s, 12h, 7d or 2w`},
	} {
		s, err := ParseSet(set)
		if err != nil {
			t.Errorf("%s: %v", set, err)
			continue
		}
		_, err = Parse("r.yaml", []byte(recipe), s)
		if d := cmp.Diff(want, lines(err)); d != "" {
			t.Errorf("%s: %s", set, d)
		}
	}
	const path = "want a path such as name, steps[0].write.content or steps[NAME].write.content"
	for set, want := range map[string]string{
		"name": "want PATH=VALUE", "a=\xff": "the value is not UTF-8 text",
		"=x": path, "a..b=x": path, "[0]=x": path, "a[]=x": path, "a[b=x": path, "a b=x": path,
	} {
		if _, err := ParseSet(set); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", set, err, want)
		}
	}
	// A problem with the value in its place, found by the kind.
	o, ps := decode(t, "{text: a}", new(everything), Set{"steps[0].kind.text", "b"})
	if p := o.Problem("text", "bad"); len(ps) > 0 || p.Error() != "--set steps[0].kind.text: bad" {
		t.Errorf("%v, %v", ps, p)
	}
}
