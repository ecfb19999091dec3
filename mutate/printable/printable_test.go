package printable_test

import (
	"testing"

	"github.com/imgmut/imgmut/mutate/printable"
)

func TestText(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"text", "grün, 木, עברית: 1\u00a0000 \U0001f40d\n\tb", "grün, 木, עברית: 1\u00a0000 \U0001f40d\n\tb"},
		{"colour", "\x1b[31mred\x1b[0m", "[31mred[0m"},
		{"a title in C1", "a\u009d0;x\u009cb", "a0;xb"},
		{"overwritten", "good\rbad\b\x7f\x00\v\f", "goodbad"},
		{"reordered", "rm \u202etxt.exe\u202c \u2066a\u2069\u200fb", "rm txt.exe ab"},
		{"not to be seen", "a\u200b\u00ad\ufeffb\u2028c\u2029d\ue000", "abcd"},
		{"bytes", "a\xff\xfe\xc3b\ufffd", "ab"},
	} {
		if got := printable.Text(tc.in); got != tc.want {
			t.Errorf("%s: Text = %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestLine(t *testing.T) {
	if got, want := printable.Line("a\x1bb\nc\r\n\td"), "ab c \td"; got != want {
		t.Errorf("Line = %q, want %q", got, want)
	}
}
