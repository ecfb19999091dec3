package recipes

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const quoteHint = " [if it is meant as text, quote it]"

func TestRefusedYAML(t *testing.T) {
	step := head + "steps:\n"
	tests := []struct {
		name, in string
		want     []string
	}{
		{"anchor and alias", step + "  - run: &a x\n  - run: *a\n", []string{
			"r.yaml:5:10: anchors (&) are not part of a recipe" + quoteHint,
			"r.yaml:6:10: aliases (*) are not part of a recipe" + quoteHint}},
		{"alias of nothing", step + "  - copy: {from: *.conf, to: *}\n", []string{
			"r.yaml:5:31: not YAML: while scanning an alias: did not find expected alphabetic or numeric character"}},
		{"pattern taken for an alias", step + "  - copy: {from: *.conf, to: /etc}\n", []string{
			"r.yaml:5:18: aliases (*) are not part of a recipe" + quoteHint}},
		{"anchor of itself", head + "steps: &a [*a, *a]\n", []string{
			"r.yaml:4:8: anchors (&) are not part of a recipe" + quoteHint,
			"r.yaml:4:12: aliases (*) are not part of a recipe" + quoteHint,
			"r.yaml:4:16: aliases (*) are not part of a recipe" + quoteHint}},
		{"merge key", step + "  - <<: {run: a}\n", []string{
			"r.yaml:5:5: merge keys (<<) are not part of a recipe" + quoteHint}},
		{"tag", step + "  - run: !!str 5\n  - !x run: a\n  - run: ! a\n", []string{
			"r.yaml:5:10: tags (!) are not part of a recipe" + quoteHint,
			"r.yaml:6:5: tags (!) are not part of a recipe" + quoteHint,
			"r.yaml:7:10: tags (!) are not part of a recipe" + quoteHint}},
		{"key that is no text", step + "  - [a]: b\n  - ? {c: d}\n    : e\n", []string{
			"r.yaml:5:5: keys that are no text are not part of a recipe" + quoteHint,
			"r.yaml:6:7: keys that are no text are not part of a recipe" + quoteHint}},
		{"documents", head + "---\nname: b\n", []string{"r.yaml:4:1: more than one document: a file is one recipe"}},
		{"empty document", head + "---\n", []string{"r.yaml:4:1: more than one document: a file is one recipe"}},
		{"document after its end", head + "...\nname: b\n", []string{
			"r.yaml:5:1: more than one document: a file is one recipe"}},
		{"directive", "# c\n%YAML 1.2\n---\n" + head, []string{
			"r.yaml:2:1: directives (%) are not part of a recipe" + quoteHint}},
		{"not UTF-8", head + "steps: \xff\n", []string{"r.yaml:4:8: byte 0xff is not UTF-8 text"}},
		{"NUL", head + "é\x00\n", []string{
			"r.yaml:4:2: control character U+0000: write it as an escape in double quotes"}},
		{"next line", head + "name: \"a\u0085b\"\n", []string{
			"r.yaml:4:9: control character U+0085: write it as an escape in double quotes"}},
		{"line separator", step + "  - run: |\n      é\u2028b\n", []string{
			"r.yaml:6:8: control character U+2028: write it as an escape in double quotes"}},
		{"byte order mark inside", step + "\ufeff  - run: a\n", []string{
			"r.yaml:5:1: control character U+FEFF: write it as an escape in double quotes"}},
		{"unclosed quote", head + "steps: \"abc\n  def\n", []string{
			"r.yaml:4:8: not YAML: while scanning a quoted scalar: found unexpected end of stream"}},
		{"unclosed list", head + "steps: [é,\n  b\n", []string{
			"r.yaml:4:8: not YAML: while parsing a flow sequence: did not find expected ',' or ']'"}},
		{"nothing in braces", head + "base: {é, {", []string{
			"r.yaml:4:12: not YAML: while parsing a flow node: did not find expected node content"}},
		{"missing comma", head + "steps: [é, {b: c}\n  {d: e}]\n", []string{
			"r.yaml:5:3: not YAML: while parsing a flow sequence: did not find expected ',' or ']'"}},
		{"tab that indents", head + "steps:\n\t- run: a\n", []string{
			"r.yaml:5:1: not YAML: while scanning for the next token: found character that cannot start any token"}},
		{"colon in text", step + "  - run: echo a: b\n", []string{
			"r.yaml:5:16: not YAML: mapping values are not allowed in this context"}},
		{"escape", step + "  - run: \"é\\xzz\"\n", []string{
			"r.yaml:5:14: not YAML: while scanning a quoted scalar: did not find expected hexadecimal number"}},
		{"half of a pair", step + "  - run: \"\\udc00\"\n", []string{
			"r.yaml:5:13: not YAML: while scanning a quoted scalar: found invalid Unicode character escape code"}},
		{"beyond Unicode", step + "  - run: \"\\UFFFFFFFF\"\n", []string{
			"r.yaml:5:13: not YAML: while scanning a quoted scalar: found invalid Unicode character escape code"}},
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

// TestBounds holds that the bounds are what they say, no less and no more.
func TestBounds(t *testing.T) {
	brackets := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	blocks := func(n int) string { return strings.Repeat("- ", n) + "a" }
	items := func(n int) string { return strings.Repeat("- a\n", n) }
	xs := func(n int) string { return strings.Repeat("x", n) }
	marks := func(n int) string { return "|\n - " + strings.Repeat(":,[]{}?", n/7+1)[:n-1] }
	keys := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "%d: a\n", i)
		}
		return b.String()
	}
	for _, test := range []struct {
		name string
		in   func(n int) string
		most int
		want string
	}{
		{"brackets", brackets, maxDepth, "r.yaml:1:33: nested too deep: more than 32 levels"},
		{"blocks", blocks, maxDepth, "r.yaml:1:65: nested too deep: more than 32 levels"},
		// The document and the list or mapping are values too.
		{"values", items, maxValues - 2, "r.yaml:39999:3: too many values: not a recipe"},
		{"keys", keys, maxValues/2 - 1, "r.yaml:20000:1: too many values: not a recipe"},
		{"bytes", xs, maxBytes, "r.yaml:1:1: larger than 1 MiB: not a recipe"},
		{"marks", marks, maxMarks, "r.yaml: too many values: not a recipe"},
	} {
		if _, ps := readTree("r.yaml", []byte(test.in(test.most))); len(ps) > 0 {
			t.Errorf("%s: %d are refused: %v", test.name, test.most, ps)
		}
		if _, ps := readTree("r.yaml", []byte(test.in(test.most+1))); ps.Error() != test.want {
			t.Errorf("%s: got %v for %d, want %s", test.name, ps, test.most+1, test.want)
		}
	}
}

// TestCost holds that no input of a permitted size takes long. The limits in
// yaml.go are chosen by these.
func TestCost(t *testing.T) {
	repeat := func(s string) string { return strings.Repeat(s, (maxBytes-100)/len(s)) }
	marks := func(s string, each int) string { return strings.Repeat(s, maxMarks/each-10) }
	distinct := func(format string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for name, in := range map[string]string{
		"brackets":           repeat("["),
		"braces":             repeat("{"),
		"closing":            repeat("]"),
		"open maps":          repeat("{a: "),
		"lists":              repeat("- "),
		"minus":              repeat("-"),
		"deep keys":          repeat("a:\n "),
		"keys":               repeat("a:\n"),
		"items":              repeat("- a\n"),
		"null items":         repeat("-\n"),
		"explicit keys":      repeat("? a\n"),
		"flow keys":          "{" + repeat("a,"),
		"documents":          repeat("---\n"),
		"ends":               repeat("...\n"),
		"questions":          repeat("? "),
		"tags":               repeat("!!map "),
		"anchors":            repeat("&a "),
		"merge":              repeat("<<"),
		"tabs":               `"` + repeat("\t") + `"`,
		"tab lines":          `"` + repeat(strings.Repeat("\t", 4096)+"\n") + `"`,
		"blank lines":        "a: |\n x" + repeat("\n"),
		"indented lines":     "a: |\n" + repeat(strings.Repeat(" ", 4096)+"\n"),
		"folded lines":       "a: >\n" + repeat(" a\n\n"),
		"escapes":            `a: "` + repeat(`\x41`) + `"`,
		"escaped lines":      `a: "` + repeat("\\\n") + `"`,
		"single quotes":      "a: '" + repeat("''") + "'",
		"plain lines":        "a: a" + repeat("\n a"),
		"newlines":           repeat("\n"),
		"quotes":             repeat(`"`),
		"reserved":           repeat("@ "),
		"colons":             repeat(":"),
		"pipes":              repeat("|\n"),
		"comments":           repeat("#\n"),
		"spaces":             "'" + repeat(" \n") + "'",
		"one word":           repeat("x"),
		"one key":            head + strings.Repeat("k", maxBytes/2) + ": [" + strings.Repeat("1,", maxValues-20) + "]\n",
		"most keys":          marks("a:\n", 1),
		"most items":         marks("- a\n", 1),
		"most in brackets":   "[" + marks(",:", 2),
		"most in braces":     "{" + marks("a,\n\n", 1),
		"most brackets":      "[" + marks("[],", 3),
		"comments of keys":   marks("a: # cc\n", 1),
		"comments of items":  marks("- # c\n", 1),
		"comments of blocks": marks("- - b\n  # c\n# c\n", 2),
		"comments in braces": "{" + marks("\n# c\na,", 1),
		"most anchors":       distinct("- &%x\n", maxMarks-10),
		"most aliases":       distinct("- *a%d\n", maxMarks-10),
		"duplicate keys":     head + strings.Repeat(strings.Repeat("k", 45)+":\n", maxValues/2-10),
		"unknown keys":       head + distinct("s%05d:\n", maxValues/2-10),
		"unknown step keys":  head + "steps:\n- run: a\n" + distinct("  s%05d:\n", maxValues/2-20),
	} {
		t.Run(name, func(t *testing.T) {
			if len(in) > maxBytes {
				t.Fatalf("%d bytes", len(in))
			}
			const most = 500 * time.Millisecond
			took := time.Hour
			for range 3 { // what else runs on the machine makes it slower, and nothing makes it faster
				before := processorTime(t)
				r, err := Parse("r.yaml", []byte(in))
				if err == nil {
					t.Fatalf("accepted: %+v", r)
				}
				if err = Merge(err, err); err == nil {
					t.Fatal("merged to nothing")
				}
				if took = min(took, processorTime(t)-before); took < most/2 {
					break
				}
			}
			t.Logf("%v", took)
			if took > most {
				t.Errorf("took %v, want at most %v", took, most)
			}
		})
	}
}

// processorTime is how long this process has had a processor.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestText holds what text says: none of it may change on its way to an image.
func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"plain text # comment":         "plain text",
		"a:b":                          "a:b",
		"'it''s'":                      "it's",
		`"a\tb\n\x41\u00e9\U0001F600"`: "a\tb\nAé😀",
		"http://example.org/?a=b&c":    "http://example.org/?a=b&c",
		"a && b | c > d":               "a && b | c > d",
		"a\tb":                         "a\tb",
		"2024-01-02":                   "2024-01-02",
		"a\n        b\n":               "a b",
		"|\n        a\n         b\n\n        # c\n        d: [e\n": "a\n b\n\n# c\nd: [e\n",
		"|\n        #!/bin/sh\n        \ttab\n        end  \n":     "#!/bin/sh\n\ttab\nend  \n",
		"|-\n        a\n        b\n\n":                             "a\nb",
		"|+\n        a\n\n\n":                                      "a\n\n\n\n",
		"|2\n          a\n        b\n":                             "  a\nb\n",
		">\n        a\n        b\n\n        c\n":                   "a b\nc\n",
		"|\n        a\r\n        b\r\n":                            "a\nb\n",
		"|\n        a\n        ---\n        b\n":                   "a\n---\nb\n",
	} {
		const after = "\n      # a comment\n      mode: \"0644\"\n"
		r, err := Parse("r.yaml", []byte(head+"steps:\n  - write:\n      content: "+in+after))
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		var w struct {
			Content string `yaml:"content"`
			Mode    string `yaml:"mode"`
		}
		if ps := r.Steps[0].Options.Decode(&w); len(ps) > 0 {
			t.Errorf("%q: %v", in, ps)
		}
		if w.Content != want || w.Mode != "0644" {
			t.Errorf("%q:\n got %q, mode %q\nwant %q", in, w.Content, w.Mode, want)
		}
	}
}

// TestTextAsOthersReadIt holds text against what another reader of YAML (PyYAML
// 6.0.3) says of it; "refused" is its word for what is no YAML.
func TestTextAsOthersReadIt(t *testing.T) {
	const refused = "refused"
	for in, want := range map[string]string{
		"|-\n  end \n":                         "end ",
		"|-\n  a\n     \n":                     "a\n   ",
		"|\n  a\n\n\n":                         "a\n",
		"|+\n  a\n\n\n":                        "a\n\n\n",
		"|\n\n \n  a\n b\n":                    refused, // b ends the block, and is nothing
		"|2-\n   a\n  b\n":                     " a\nb",
		"|-2\n   a\n  b\n":                     " a\nb",
		"|1\n  a\n":                            " a\n",
		"| # comment\n  # text\n":              "# text\n",
		"|\n  a":                               "a",
		"|\n  a\n ":                            "a\n",
		"|\n":                                  "",
		"|\n\n\n":                              "",
		"|+\n\n\n":                             "\n\n",
		"|\n  \ta\n  b\n":                      "\ta\nb\n",
		"|\n   \n  a\n":                        refused,
		"|\n  a\n # b\n":                       "a\n",
		"|\n  a\n#b\n  c\n":                    refused,
		"|\n  a\n  ...\n  b\n":                 "a\n...\nb\n",
		">\n  a\n  b\n\n  c\n\n\n  d\n":        "a b\nc\n\nd\n",
		">\n  a\n\n    b\n    c\n  d\n":        "a\n\n  b\n  c\nd\n",
		">\n\n  a\n  \tb\n  c\n":               "\na\n\tb\nc\n",
		">-\n  a \n  b \n":                     "a  b ",
		">+\n  a\n\n# comment\n":               "a\n\n",
		"|\r\n  a\r\n  b\r\n":                  "a\nb\n",
		"|\n  ünï\n  \t\"quotes\" 'and' \\n\n": "ünï\n\t\"quotes\" 'and' \\n\n",
		"plain\n  and more\n":                  "plain and more",
		"plain\n\n  and more\n":                "plain\nand more",
		"plain # comment\n  more\n":            refused,
		"  a  \n":                              "a",
		"a ? b#c\n":                            "a ? b#c",
		"\"a\n  b\"\n":                         "a b",
		"\"a\tb\"\n":                           "a\tb",
		"\"a \\\n   b\\\n  \\ c\"\n":           "a b c",
		"'a\n\n  b'\n":                         "a\nb",
		"\"\\x41\\u00e9\\0\\e\\_\"\n":          "Aé\x00\x1b\u00a0",
		"- a\n":                                refused,
		"? a\n":                                refused,
	} {
		root, ps := readTree("r.yaml", []byte("a: "+in))
		got := refused
		if len(ps) == 0 {
			got = root.entries[0].value.text
		}
		if got != want {
			t.Errorf("%q:\n got %q, %v\nwant %q", in, got, ps, want)
		}
	}
}

// TestScalars holds what is taken for text where a recipe has no quotes. What
// readers of YAML disagree on is a number.
func TestScalars(t *testing.T) {
	for kind, all := range map[nodeKind][]string{
		null:    {"", "~", "null", "NULL"},
		boolean: {"true", "True", "FALSE"},
		number: {"0", "0644", "0o7", "08", "0x1F", "0b11", "1_000", "1.10", ".5", "1.", "-0", "+1", "1e3",
			".inf", "-.INF", ".nan", "123456789012345678901234567890"},
		text: {"yes", "No", "on", "tRue", "1:30", "2024-01-02", "2024-01-02T10:00:00Z", "1.2.3",
			"0o9", "_1", "--", "=", "1e", `""`, "''"},
	} {
		for _, in := range all {
			root, ps := readTree("r.yaml", []byte("a: "+in+"\n"))
			if len(ps) > 0 {
				t.Errorf("%s: %v", in, ps)
			} else if got := root.entries[0].value; got.kind != kind {
				t.Errorf("%s: got %s, kind %d, want kind %d", in, got.found(), got.kind, kind)
			}
		}
	}
}

// TestColons pins what YAML says of a colon without a space after it.
func TestColons(t *testing.T) {
	for in, want := range map[string][]string{
		"{install: [libc6:i386, b]}":                      {"libc6:i386", "b"},
		"{install: [a:b:c, http://x/y, \"q:r\"]}":         {"a:b:c", "http://x/y", "q:r"},
		"{install: [a:1]}":                                {"a:1"},
		"\n      install: [libc6:i386, 'c:d']":            {"libc6:i386", "c:d"},
		"\n      install:\n      - libc6:i386\n      - b": {"libc6:i386", "b"},
	} {
		r, err := Parse("r.yaml", []byte(head+"steps:\n  - packages: "+in+"\n"))
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		var p struct {
			Install []string `yaml:"install"`
		}
		ps := r.Steps[0].Options.Decode(&p)
		if d := cmp.Diff(want, p.Install); d != "" || len(ps) > 0 {
			t.Errorf("%q: %v %s", in, ps, d)
		}
	}
}

func TestByteOrderMark(t *testing.T) {
	if _, err := Parse("r.yaml", []byte("\ufeff"+head)); err != nil {
		t.Error(err)
	}
}
