// Package printable makes text fit for a terminal. Much of what is shown comes from
// images and the programs in them, and a terminal obeys some characters and
// reorders a line by others (U+202E and its like), so that it shows what nobody
// wrote.
package printable

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text leaves out whatever is neither to be seen, nor a space, a tab or the end
// of a line: control and format characters, and bytes that are no UTF-8.
func Text(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsGraphic(r) && r != utf8.RuneError {
			return r
		}
		return -1
	}, s)
}

// Line is [Text] on one line, with a space for each line break.
func Line(s string) string { return strings.ReplaceAll(Text(s), "\n", " ") }
