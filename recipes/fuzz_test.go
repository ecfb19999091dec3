package recipes

import (
	"bytes"
	"io/fs"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse holds that a recipe has one verdict, that every problem is at a
// place of the file, and that an accepted recipe stays so under another name.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"minimal.yaml", "web.yaml"} {
		data, err := fs.ReadFile(Examples(), name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(full))
	f.Add([]byte(head + "disk: {size: +20G, grow: /var}\n"))
	f.Add([]byte(head + "steps:\n  - packages: {install: [libc6:i386]}\n  - run: \"\\ud83d\\ude00\\\n  x\"\n"))
	f.Add([]byte(head + "? b1\n\n :e\n\"\\e[2J\": [*a, {, \"a\n b\": |\n\n  x"))
	f.Add([]byte(head + "name: b\nx: &a [*a, !!t {}]\r\n? >-\n a\n\tb\n...\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse("r.yaml", data)
		again, errAgain := Parse("r.yaml", data)
		if got, want := message(errAgain), message(err); got != want {
			t.Fatalf("first %q, then %q", want, got)
		}
		if err != nil {
			checkPlaces(t, data, err.(Problems))
			return
		}
		if r.Digest != again.Digest || len(r.Steps) != len(again.Steps) {
			t.Fatalf("first %+v, then %+v", r, again)
		}
		for _, s := range r.Steps {
			checkPlaces(t, data, s.Options.Decode(new(everything)))
			checkPlaces(t, data, Problems{s.Options.Problem("text", "x")})
		}
		named, err := Parse("r.yaml", data, Set{"name", "other"})
		if err != nil {
			t.Fatalf("under another name: %v", err)
		}
		if named.Name != "other" || named.Digest == r.Digest {
			t.Fatalf("%+v", named)
		}
	})
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func checkPlaces(t *testing.T, data []byte, problems Problems) {
	t.Helper()
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	text := strings.ReplaceAll(strings.ReplaceAll(string(data), "\r\n", "\n"), "\r", "\n")
	lines := strings.Split(text, "\n")
	for _, p := range problems {
		if p.File != "r.yaml" || p.Line < 1 || p.Line > len(lines) ||
			p.Col < 1 || p.Col > utf8.RuneCountInString(lines[p.Line-1])+1 {
			t.Fatalf("no such place: %v", p)
		}
		if p.Message == "" || strings.ContainsAny(p.Path, "\n\r") {
			t.Fatalf("%#v", p)
		}
	}
}
