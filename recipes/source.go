package recipes

import (
	"bytes"
	"sort"
	"unicode/utf8"
)

// What a recipe may be. The YAML scanner and parser are quadratic in several
// ways, some recursions grow with the number of keys, and there is no stopping
// them once they run; so what would cost too much never reaches them. The
// figures are far above any recipe that a person or a generator needs, and
// keep the worst input at about a second.
const (
	maxBytes  = 1 << 20
	maxTokens = 40_000
	maxDepth  = 32
	maxWork   = 1 << 28 // characters that the scanner may look at again
)

// source is the text of a recipe and where its lines begin.
type source struct {
	file   string
	data   []byte
	starts []int // byte offset of each line
	last   cursor
}

// newSource refuses bytes that are not the text of a recipe.
func newSource(file string, data []byte) (*source, *Problem) {
	s := &source{file: file, starts: []int{0}}
	if len(data) > maxBytes {
		s.data = data[:1]
		return nil, s.problem(Pos{Line: 1, Col: 1}, "larger than 1 MiB: not a recipe")
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if bytes.IndexByte(data, '\r') >= 0 { // all of YAML's line breaks are one
		data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
		data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
	}
	s.data = data
	for i, c := range data {
		if c == '\n' {
			s.starts = append(s.starts, i+1)
		}
	}
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return nil, s.problem(s.posOf(i), "byte 0x%02x is not UTF-8 text", data[i])
		case r < ' ' && r != '\t' && r != '\n', r == 0x7f:
			return nil, s.problem(s.posOf(i), "control character %U: write it as an escape in double quotes", r)
		}
		i += n
	}
	if at := tooMuchWork(data); at >= 0 {
		return nil, s.problem(s.posOf(at), "too many tabs, blank lines or '<' in a row")
	}
	return s, nil
}

// tooMuchWork is where the cost of scanning gets out of hand, or -1. Seen in
// goccy/go-yaml v1.19.2: a tab in double quotes looks ahead to the end of its
// line, a '<' counts all that follow it, and each blank line at the end of a
// block scalar copies the block.
func tooMuchWork(data []byte) int {
	work, tabs, lineStart, angles, blanks := 0, 0, 0, 0, 0
	for i := 0; i <= len(data); i++ {
		c := byte('\n')
		if i < len(data) {
			c = data[i]
		}
		if c == '<' {
			angles++
		} else {
			work += angles * angles
			angles = 0
		}
		if c == '\t' {
			tabs++
		}
		if c == '\n' {
			work += tabs * (i - lineStart)
			tabs, lineStart = 0, i+1
			blanks++
		} else if c != ' ' && c != '\t' || i == len(data) {
			work += blankWork(blanks, i)
			blanks = 0
		}
		if work > maxWork {
			return min(i, len(data)-1)
		}
	}
	if work+blankWork(blanks, len(data)) > maxWork {
		return len(data) - 1
	}
	return -1
}

// blankWork is the cost of blank lines after a block. A few are linear, as
// every block has its own; a copy costs some four times a look.
func blankWork(lines, before int) int {
	if lines <= 8 {
		return 0
	}
	return 4 * lines * before
}

// cursor is a place that was asked for before. Questions mostly come in the
// order of the file, and a line may be long.
type cursor struct {
	pos    Pos
	offset int
}

// posOf is the place of a byte.
func (s *source) posOf(offset int) Pos {
	line := sort.SearchInts(s.starts, offset+1) // the first that begins after it
	c := s.from(line)
	if c.offset > offset {
		c = cursor{Pos{Line: line, Col: 1}, s.starts[line-1]}
	}
	c.pos.Col += utf8.RuneCount(s.data[c.offset:offset])
	s.last = cursor{c.pos, offset}
	return c.pos
}

// from is the last place asked for if it is in the line, or else its start.
func (s *source) from(line int) cursor {
	if s.last.pos.Line == line {
		return s.last
	}
	return cursor{Pos{Line: line, Col: 1}, s.starts[line-1]}
}

// line is the text of a line, counted from 1, without its end.
func (s *source) line(n int) []byte {
	end := len(s.data)
	if n < len(s.starts) {
		end = s.starts[n]
	}
	return bytes.TrimSuffix(s.data[s.starts[n-1]:end], []byte("\n"))
}

// clamp moves a place that the scanner got wrong into the file: it loses
// count after tabs and in folded text.
func (s *source) clamp(p Pos) Pos {
	p, _ = s.locate(p)
	return p
}

// locate is clamp that also gives the byte.
func (s *source) locate(p Pos) (Pos, int) {
	line := min(max(p.Line, 1), len(s.starts))
	c := s.from(line)
	if c.pos.Col > p.Col {
		c = cursor{Pos{Line: line, Col: 1}, s.starts[line-1]}
	}
	end := len(s.data)
	if line < len(s.starts) {
		end = s.starts[line]
	}
	for c.pos.Col < p.Col && c.offset < end && s.data[c.offset] != '\n' {
		_, n := utf8.DecodeRune(s.data[c.offset:])
		c.offset += n
		c.pos.Col++
	}
	s.last = c
	return c.pos, c.offset
}

func (s *source) problem(at Pos, format string, args ...any) *Problem {
	p := newProblem(s.file, s.clamp(at), "", format, args...)
	return &p
}
