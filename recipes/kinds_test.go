package recipes

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// thing is what the kinds of these tests make.
type thing interface{ Validator }

// link is a kind with a mapping, words one with a list as its short form.
type link struct {
	From string `yaml:"from" json:"from,omitempty"`
	To   string `yaml:"to" json:"to,omitempty"`
}

type words struct {
	List []string `yaml:"list" json:"list,omitempty"`
	Most int      `yaml:"most" json:"most,omitempty"`
}

func (w *words) FromList(l []string) error { w.List = l; return nil }

func absolute(name string) error {
	if !path.IsAbs(name) {
		return fmt.Errorf("%q: want an absolute path", name)
	}
	return nil
}

func (l *link) Validate(o Options) Problems {
	v := o.Validation()
	v.Check("from", absolute(l.From))
	v.Check("to", absolute(l.To))
	v.Want(l.From == "" || l.From != l.To, "", "%s links to itself", l.From)
	return v.Problems()
}

func (w *words) Validate(o Options) Problems {
	v := o.Validation()
	v.CheckEach("list", w.List, func(word string) error {
		if strings.Contains(word, " ") {
			return errors.New("more than one word")
		}
		return nil
	})
	v.Want(len(w.List) > 0, "", "nothing to say: want a list")
	v.Want(w.Most >= 0, "most", "want 0 or more, found %d", w.Most)
	return v.Problems()
}

var things = Kinds[thing]{
	{Name: "link", Version: 1, New: func() thing { return new(link) }},
	{Name: "words", Version: 2, New: func() thing { return new(words) }},
}

// parseSteps is a recipe with those steps, the first on line 5.
func parseSteps(t *testing.T, steps ...string) *Recipe {
	t.Helper()
	r, err := Parse("r.yaml", []byte(head+"steps:\n  - "+strings.Join(steps, "\n  - ")+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestKindsDecodeAll(t *testing.T) {
	r := parseSteps(t, "link: {from: /a, to: /b}", "words: [a, b]")
	got, err := DecodeAll(things, r.Steps)
	if err != nil {
		t.Fatal(err)
	}
	var values []thing
	var versions []int
	for _, d := range got {
		values, versions = append(values, d.Value), append(versions, d.Kind.Version)
	}
	if d := cmp.Diff([]thing{&link{"/a", "/b"}, &words{List: []string{"a", "b"}}}, values); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]int{1, 2}, versions); d != "" {
		t.Error(d)
	}
	asserted, err := Parse("r.yaml", []byte(head+"verify: [{words: [a]}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeAll(things, asserted.Verify); err != nil || len(got) != 1 || got[0].Kind.Name != "words" {
		t.Errorf("assertions: %v, %v", got, err)
	}
}

func TestKindsProblems(t *testing.T) {
	for in, want := range map[string][]string{
		"lnik: {}": {
			"r.yaml:5:5: steps[0].lnik: no such kind: lnik (there are link, words) [did you mean link?]"},
		"frobnicate: x": {
			"r.yaml:5:5: steps[0].frobnicate: no such kind: frobnicate (there are link, words)"},
		"link: {from: a, to: /b}": {
			`r.yaml:5:18: steps[0].link.from: "a": want an absolute path`},
		"link: {from: a}": {
			`r.yaml:5:5: steps[0].link.to: "": want an absolute path`,
			`r.yaml:5:18: steps[0].link.from: "a": want an absolute path`},
		"link: {from: /a, to: /a}": {
			"r.yaml:5:5: steps[0].link: /a links to itself"},
		"link: {from: 1, to: b}": {
			`r.yaml:5:18: steps[0].link.from: want text, found the number 1 [quote it: "1"]`,
			`r.yaml:5:25: steps[0].link.to: "b": want an absolute path`},
		"words: {list: [a, b c], most: -1}": {
			"r.yaml:5:23: steps[0].words.list[1]: more than one word",
			"r.yaml:5:35: steps[0].words.most: want 0 or more, found -1"},
		"words: [a, b c]": {
			"r.yaml:5:5: steps[0].words: more than one word"},
		"words: []": {
			"r.yaml:5:5: steps[0].words: nothing to say: want a list"},
		// What could not be read is not said to be missing as well.
		"words: {list: a}": {
			`r.yaml:5:19: steps[0].words.list: want a list, found "a" [put it in brackets]`},
		"words: {lst: [a]}": {
			"r.yaml:5:13: steps[0].words.lst: unknown key [did you mean list?]"},
		"words: {list: [1]}": {
			`r.yaml:5:20: steps[0].words.list[0]: want text, found the number 1 [quote it: "1"]`},
	} {
		_, err := DecodeAll(things, parseSteps(t, in).Steps)
		var ps Problems
		if err != nil {
			ps = err.(Problems).Sorted()
		}
		if d := cmp.Diff(want, lines(ps)); d != "" {
			t.Errorf("%s: %s", in, d)
		}
	}
	// The problems of every item, but for one that has no kind: that has been said.
	r, err := Parse("r.yaml", []byte(head+"steps: [{lnik: {}}, {name: x}, {words: []}]\n"))
	if err == nil {
		t.Fatal("a step without a kind is accepted")
	}
	var ps Problems
	if _, err := DecodeAll(things, r.Steps); !errors.As(err, &ps) || len(ps) != 2 {
		t.Errorf("got %v, want the problems of two steps", err)
	}
}

func TestKindsRecord(t *testing.T) {
	items, err := DecodeAll(things, parseSteps(t, "link: {from: /a, to: /b}", "words: [a, b]").Steps)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		`{"kind":"link","options":{"from":"/a","to":"/b"}}`,
		`{"kind":"words","options":{"list":["a","b"]}}`,
	} {
		recorded, err := items[i].Record()
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(recorded)
		if err != nil || string(b) != want {
			t.Errorf("got %s, %v, want %s", b, err, want)
		}
		var read Recorded
		indented, _ := json.MarshalIndent(recorded, "", "  ")
		if err := json.Unmarshal(indented, &read); err != nil {
			t.Fatal(err)
		}
		recalled, err := things.Recall(read)
		if err != nil || recalled.Kind.Name != items[i].Kind.Name || !cmp.Equal(recalled.Value, items[i].Value) {
			t.Errorf("recalled %+v, %v, want %+v", recalled, err, items[i])
		}
	}
}

func TestKindsRecallRefuses(t *testing.T) {
	for _, test := range []struct {
		kind, options, want string
	}{
		{"lnik", `{}`, "recall: no such kind: lnik (there are link, words)"},
		{"link", `{"from":"/a","mode":"0644"}`, `recall link: json: unknown field "mode"`},
		{"link", `{"from":1}`, "recall link: json: cannot unmarshal number"},
		{"link", ``, "recall link: EOF"},
	} {
		_, err := things.Recall(Recorded{test.kind, json.RawMessage(test.options)})
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s %s: got %v, want %s", test.kind, test.options, err, test.want)
		}
	}
}
