package mutate

import (
	"bytes"
	"slices"

	"github.com/imgmut/imgmut/mutate/printable"
)

// tailLines is how many lines of a failed step are told again with the error.
const tailLines = 20

// maxLine is where a longer line is cut, in bytes.
const maxLine = 4 << 10

// lineWriter cuts output into lines and remembers the last.
type lineWriter struct {
	emit func(line string)
	rest []byte
	last []string
}

func (w *lineWriter) write(b []byte) {
	w.rest = append(w.rest, b...)
	for {
		i := bytes.IndexByte(w.rest, '\n')
		next := i + 1
		if i > maxLine || i < 0 && len(w.rest) > maxLine {
			i, next = maxLine, maxLine // no newline here to leave out
		}
		if i < 0 {
			return
		}
		w.line(w.rest[:i])
		w.rest = w.rest[next:]
	}
}

func (w *lineWriter) flush() {
	if len(w.rest) > 0 {
		w.line(w.rest)
		w.rest = nil
	}
}

// line passes a line on as it is fit for a terminal: the last of the pieces that
// carriage returns would have written over each other.
func (w *lineWriter) line(b []byte) {
	b = bytes.TrimRight(b, "\r")
	if i := bytes.LastIndexByte(b, '\r'); i >= 0 {
		b = b[i+1:]
	}
	s := printable.Line(string(b))
	w.last = append(w.last, s)
	w.last = w.last[max(0, len(w.last)-tailLines):]
	w.emit(s)
}

func (w *lineWriter) tail() []string { return slices.Clone(w.last) }
