package mutate

import (
	"slices"
	"strings"
	"testing"
)

func TestLineWriter(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for _, tc := range []struct {
		name string
		in   []string // write by write
		want []string
	}{
		{"nothing", nil, nil},
		{"lines", []string{"a\nb\n"}, []string{"a", "b"}},
		{"pieces", []string{"a", "b\nc", "\n", "d"}, []string{"ab", "c", "d"}},
		{"empty lines", []string{"\n\na\n"}, []string{"", "", "a"}},
		{"no final newline", []string{"a\nb"}, []string{"a", "b"}},
		{"line ends of Windows", []string{"a\r\nb\r\n"}, []string{"a", "b"}},
		{"progress", []string{" 1%\r 50%\r100%\ndone\n"}, []string{"100%", "done"}},
		{"progress in pieces", []string{"1%\r", "2%\r", "\n"}, []string{"2%"}},
		{"control bytes", []string{"\x1b[31mred\x1b[0m\a\x00\x7f\tend\n"}, []string{"[31mred[0m\tend"}},
		{"reordered", []string{"rm \u202etxt.exe\u2066\n"}, []string{"rm txt.exe"}},
		{"invalid UTF-8", []string{"a\xff\xfeb\xc3\n"}, []string{"ab"}},
		{"a letter in two pieces", []string{"gr\xc3", "\xbcn\n"}, []string{"grün"}},
		{"longest line", []string{long + "\nb\n"}, []string{long, "b"}},
		{"too long a line", []string{long + long + "ab\nc\n"}, []string{long, long, "ab", "c"}},
		{"too long in pieces", []string{long, "yz", "\n"}, []string{long, "yz"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			w := &lineWriter{emit: func(line string) { got = append(got, line) }}
			for _, s := range tc.in {
				b := []byte(s)
				w.write(b)
				clear(b) // the caller uses its buffer again
			}
			w.flush()
			w.flush()
			if !slices.Equal(got, tc.want) {
				t.Errorf("lines %.60q, want %.60q", got, tc.want)
			}
			if !slices.Equal(w.tail(), tc.want) {
				t.Errorf("tail %.60q, want %.60q", w.tail(), tc.want)
			}
		})
	}
}

func TestLineWriterTail(t *testing.T) {
	w := &lineWriter{emit: func(string) {}}
	for i := range tailLines + 5 {
		w.write([]byte{byte('A' + i), '\n'})
	}
	tail := w.tail()
	if len(tail) != tailLines || tail[0] != "F" || tail[tailLines-1] != string(rune('A'+tailLines+4)) {
		t.Errorf("tail %q", tail)
	}
}
