package recipes

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRefusedYAML(t *testing.T) {
	step := head + "steps:\n"
	tests := []struct {
		name, in string
		want     []string
	}{
		{"anchor and alias", step + "  - run: &a x\n  - run: *a\n", []string{
			"r.yaml:5:10: anchors (&) are not part of a recipe [if it is meant as text, quote it]",
			"r.yaml:6:10: aliases (*) are not part of a recipe [if it is meant as text, quote it]"}},
		{"merge key", step + "  - <<: {run: a}\n", []string{"r.yaml:5:5: merge keys (<<) are not part of a recipe"}},
		{"tag", step + "  - run: !!str 5\n  - !x run: a\n", []string{
			"r.yaml:5:10: tags (!) are not part of a recipe [if it is meant as text, quote it]",
			"r.yaml:6:5: tags (!) are not part of a recipe [if it is meant as text, quote it]"}},
		{"documents", head + "---\nname: b\n", []string{"r.yaml:4:1: more than one document: a file is one recipe"}},
		{"document end", head + "...\n", []string{"r.yaml:4:1: more than one document: a file is one recipe"}},
		{"directive", "%YAML 1.2\n---\n" + head, []string{
			"r.yaml:1:1: directives (%) are not part of a recipe [if it is meant as text, quote it]",
			"r.yaml:2:1: more than one document: a file is one recipe"}},
		{"explicit key", head + "? steps\n: []\n", []string{"r.yaml:4:1: explicit keys (?) are not part of a recipe"}},
		{"not UTF-8", head + "steps: \xff\n", []string{"r.yaml:4:8: byte 0xff is not UTF-8 text"}},
		{"NUL", head + "é\x00\n", []string{"r.yaml:4:2: control character U+0000: write it as an escape in double quotes"}},
		{"unclosed quote", head + "steps: \"abc\n", []string{"r.yaml:4:8: not YAML: could not find end character of double-quoted text"}},
		{"unclosed list", head + "steps: [a\n", []string{"r.yaml:4:8: not YAML: sequence end token ']' not found"}},
		{"tab", head + "steps:\n\t- run: a\n", []string{`r.yaml:5:1: not YAML: found character '	' that cannot start any token`}},
		{"escape", step + "  - run: \"é\\xzz\"\n", []string{`r.yaml:5:12: \x and what follows it is no character`}},
		{"escape after escapes", step + "  - run: ['it''s', \"\\\\ \\\" \\xg0\"]\n", []string{`r.yaml:5:27: \x and what follows it is no character`}},
		{"tab in text", step + "  - run: a\tb # \t\n  - run: \"a\tb\" # \n  - run: |\n     a\n     \tb\n", []string{
			`r.yaml:5:11: a tab [indent with spaces; in text write "\t", in double quotes, or use a block ("|")]`,
			`r.yaml:6:12: a tab [indent with spaces; in text write "\t", in double quotes, or use a block ("|")]`}},
		{"plain lines", step + "  - run: a\n     b\n", []string{`r.yaml:5:10: text over several lines [write it as a block, after "|"]`}},
		{"double-quoted lines", step + "  - run: \"a\n     b\"\n", []string{`r.yaml:5:10: text over several lines [write it as a block, after "|"]`}},
		{"single-quoted lines", step + "  - run: 'a\n     b'\n", []string{`r.yaml:5:10: text over several lines [write it as a block, after "|"]`}},
		{"block that begins with a tab", step + "  - run: |\n      \ta\n      b\n  - run: x\n", []string{
			"r.yaml:7:7: the block of text at or before this place is not clear [" + blockHint + "]"}},
		{"empty block", step + "  - run: |\n  - run: x\n", []string{
			"r.yaml:5:10: the block of text at or before this place is not clear [" + blockHint + "]"}},
		{"half a pair", step + "  - run: \"\\udc00\"\n", []string{`r.yaml:5:11: \u and what follows it is no character`}},
		{"beyond Unicode", step + "  - run: \"\\UFFFFFFFF\"\n", []string{`r.yaml:5:11: \U and what follows it is no character`}},
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

// TestCost holds that no input of a permitted size takes long or much of the
// stack. Each of these took minutes, or gigabytes, before there was a limit.
func TestCost(t *testing.T) {
	repeat := func(s string) string { return strings.Repeat(s, maxBytes/len(s)) }
	for name, in := range map[string]string{
		"brackets":     repeat("["),
		"braces":       repeat("{"),
		"open maps":    repeat("{a: "),
		"lists":        repeat("- "),
		"minus":        repeat("-"),
		"deep keys":    repeat("a:\n "),
		"keys":         repeat("a:\n"),
		"null items":   repeat("-\n"),
		"flow keys":    "{" + repeat("a,")[1:],
		"documents":    repeat("---\n"),
		"ends":         repeat("...\n"),
		"questions":    repeat("? "),
		"tags":         repeat("!!map "),
		"anchors":      repeat("&a "),
		"merge":        repeat("<<"),
		"merge colons": repeat("<<: "),
		"tabs":         `"` + repeat("\t")[2:] + `"`,
		"tab lines":    `"` + repeat(strings.Repeat("\t", 4096) + "\n")[2:] + `"`,
		"blank lines":  "a: |\n x" + repeat("\n")[8:],
		"blank blocks": repeat("a: |\n x\n" + strings.Repeat("\n", 50)),
		"bad escapes":  repeat("- \"\\xzz\"\n"),
		"pairs":        `"` + repeat(`\ud83d\ude00`)[12:] + `"`,
		"newlines":     repeat("\n"),
		"quotes":       repeat(`"`),
		"reserved":     repeat("@ "),
		"colons":       repeat(":"),
		"pipes":        repeat("|\n"),
		"comments":     repeat("#\n"),
		"spaces":       "'" + repeat(" \n")[2:] + "'",
		"one word":     repeat("x"),
		"closing":      repeat("]"),
	} {
		t.Run(name, func(t *testing.T) {
			if len(in) > maxBytes {
				t.Fatalf("%d bytes", len(in))
			}
			started := time.Now()
			_, err := Parse("r.yaml", []byte(in))
			if err == nil {
				t.Error("accepted")
			}
			took := time.Since(started)
			t.Logf("%v: %.100v", took, err)
			if took > 20*time.Second { // a second or less without -race, on a machine with nothing else to do
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestText holds what text says: none of it may change on its way to an image.
func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"plain text # comment": "plain text",
		"a:b":                  "a:b",
		"'it''s'":              "it's",
		`"a\tb\n\x41\u00e9\ud83d\ude00\U0001F600"`:                 "a\tb\nAé😀😀",
		"http://example.org/?a=b&c":                                "http://example.org/?a=b&c",
		"a && b | c > d":                                           "a && b | c > d",
		"|\n        a\n         b\n\n        # c\n        d: [e\n": "a\n b\n\n# c\nd: [e\n",
		"|\n        #!/bin/sh\n        \ttab\n        end  \n":     "#!/bin/sh\n\ttab\nend  \n",
		"|-\n        a\n        b\n\n":                             "a\nb",
		"|+\n        a\n\n\n":                                      "a\n\n\n\n",
		"|2\n          a\n        b\n":                             "  a\nb\n",
		">\n        a\n        b\n\n        c\n":                   "a b\nc\n",
		"|\n        a\r\n        b\r\n":                            "a\nb\n",
		"|\n        a\n        ---\n        b\n":                   "a\n---\nb\n",
	} {
		data := head + "steps:\n  - write:\n      content: " + in + "\n      # a comment\n      mode: \"0644\"\n"
		r, err := Parse("r.yaml", []byte(data))
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

// TestBlocks holds block scalars against what another reader of YAML (PyYAML
// 6.0.3) says of them.
func TestBlocks(t *testing.T) {
	for in, want := range map[string]string{
		"|-\n  end \n":                         "end ",
		"|-\n  a\n     \n":                     "a\n   ",
		"|\n  a\n\n\n":                         "a\n",
		"|+\n  a\n\n\n":                        "a\n\n\n",
		"|\n\n \n  a\n b\n":                    "", // b ends the block, and is nothing
		"|2-\n   a\n  b\n":                     " a\nb",
		"|-2\n   a\n  b\n":                     " a\nb",
		"| # comment\n  # text\n":              "# text\n",
		"|\n  a":                               "a",
		"|\n  a\n ":                            "a\n",
		">\n  a\n  b\n\n  c\n\n\n  d\n":        "a b\nc\n\nd\n",
		">\n  a\n\n    b\n    c\n  d\n":        "a\n\n  b\n  c\nd\n",
		">\n\n  a\n  \tb\n  c\n":               "\na\n\tb\nc\n",
		">-\n  a \n  b \n":                     "a  b ",
		">+\n  a\n\n# comment\n":               "a\n\n",
		"|\r\n  a\r\n  b\r\n":                  "a\nb\n",
		"|\n  ünï\n  \t\"quotes\" 'and' \\n\n": "ünï\n\t\"quotes\" 'and' \\n\n",
	} {
		root, ps := readTree("r.yaml", []byte("a: "+in))
		if want == "" {
			if len(ps) == 0 {
				t.Errorf("%q: accepted", in)
			}
			continue
		}
		if len(ps) > 0 {
			t.Errorf("%q: %v", in, ps)
			continue
		}
		if got := root.entries[0].value.text; got != want {
			t.Errorf("%q:\n got %q\nwant %q", in, got, want)
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
