package recipes

import (
	"bytes"
	"strings"

	"github.com/goccy/go-yaml/token"
)

// The scanner's idea of where a block scalar ends is good; what it makes of
// the text is not: goccy/go-yaml v1.19.2 drops spaces at the end and mistakes
// tabs. The text goes into images, so it is read here, from the source.

// block is a block scalar: its lines and how they are put together.
type block struct {
	lines  []string // without indentation
	end    int      // the first line after it, counted from 1
	folded bool
	chomp  byte // '-', '+' or 0
	broken bool // the last line ends with the file, not with a line break
}

// readBlock reads the block whose header is t; parent is the indentation of
// what it stands in. It is nil if the header or the indentation is
// unclear, or if there is no text.
func (s *source) readBlock(t *token.Token, parent int) *block {
	b := &block{folded: t.Value[0] == '>'}
	indent := 0
	for _, c := range []byte(t.Value[1:]) {
		switch {
		case (c == '-' || c == '+') && b.chomp == 0:
			b.chomp = c
		case c >= '1' && c <= '9' && indent == 0:
			indent = parent + int(c-'0')
		default:
			return nil
		}
	}
	blanks := 0 // the most spaces of a blank line before the first that is none
	for b.end = t.Position.Line + 1; b.end <= len(s.starts); b.end++ {
		line := s.line(b.end)
		rest := bytes.TrimLeft(line, " ")
		spaces := len(line) - len(rest)
		if len(rest) == 0 {
			if indent == 0 {
				blanks = max(blanks, spaces)
			}
			b.lines = append(b.lines, string(line[min(spaces, orElse(indent, spaces)):]))
			continue
		}
		if indent == 0 && spaces > parent {
			indent = spaces
		}
		if indent == 0 || spaces < indent {
			break
		}
		b.lines = append(b.lines, string(line[indent:]))
	}
	b.broken = b.end > len(s.starts) && len(s.line(len(s.starts))) > 0
	if b.end > len(s.starts) && !b.broken && len(b.lines) > 0 {
		b.lines = b.lines[:len(b.lines)-1] // nothing stands after the last line break
	}
	if len(strings.Join(b.lines, "")) == 0 || blanks > indent {
		return nil
	}
	return b
}

func orElse(a, b int) int {
	if a == 0 {
		return b
	}
	return a
}

// text puts the lines together.
func (b *block) text() string {
	lines := b.lines
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	empty := len(b.lines) - len(lines)
	text := strings.Join(lines, "\n")
	if b.folded {
		text = fold(lines)
	}
	if len(lines) > 0 && b.chomp != '-' && (!b.broken || empty > 0) {
		text += "\n"
	}
	if b.chomp == '+' {
		text += strings.Repeat("\n", empty)
	}
	return text
}

// fold joins lines with a space, but for lines that begin with one, which stay
// apart, and empty lines, each of which is a line break.
func fold(lines []string) string {
	var b strings.Builder
	empty, apart := 0, true // apart: no line before, or one that begins with a space
	for i, line := range lines {
		if line == "" {
			empty++
			continue
		}
		indented := line[0] == ' ' || line[0] == '\t'
		switch {
		case i == empty: // the first that is not empty
			b.WriteString(strings.Repeat("\n", empty))
		case apart || indented:
			b.WriteString(strings.Repeat("\n", empty+1))
		case empty == 0:
			b.WriteByte(' ')
		default:
			b.WriteString(strings.Repeat("\n", empty))
		}
		b.WriteString(line)
		empty, apart = 0, indented
	}
	return b.String()
}

// scanned follows what the scanner took for block scalars and comments.
type scanned struct {
	header   *token.Token // of a block whose text has not come yet
	block    *block       // the last
	inBlock  map[int]bool // lines
	comments map[int]int  // columns by line
}

// add looks at a token, comments included, before it joins the others. It
// says whether the scanner and readBlock agree on where the last block ends.
func (sc *scanned) add(s *source, t *token.Token, before token.Tokens) bool {
	if t.Type == token.CommentType {
		sc.comments[t.Position.Line] = t.Position.Column
		return sc.header != nil || sc.agrees(s, t.Position.Line)
	}
	if sc.header != nil {
		sc.header = nil
		if t.Type == token.StringType {
			t.Value = sc.block.text()
			return true
		}
	}
	if !sc.agrees(s, t.Position.Line) {
		return false
	}
	if t.Type != token.LiteralType && t.Type != token.FoldedType {
		return true
	}
	sc.block = s.readBlock(t, indentBefore(before))
	if sc.block == nil {
		return false
	}
	sc.header = t
	for line := t.Position.Line + 1; line < sc.block.end; line++ {
		sc.inBlock[line] = true
	}
	return true
}

// agrees says whether what follows a block, on this line, is the first thing
// after its end.
func (sc *scanned) agrees(s *source, line int) bool {
	if sc.block == nil {
		return true
	}
	end := sc.block.end
	sc.block = nil
	for end < line && len(bytes.TrimLeft(s.line(end), " ")) == 0 {
		end++
	}
	return end == line
}

// atEnd is agrees at the end of the file.
func (sc *scanned) atEnd(s *source) bool {
	return sc.block == nil || sc.block.end > len(s.starts)
}

// indentBefore is the indentation of the key or the list that a block is the
// value of.
func indentBefore(ts token.Tokens) int {
	n := len(ts)
	switch {
	case n > 1 && ts[n-1].Type == token.MappingValueType:
		return ts[n-2].Position.Column - 1
	case n > 0 && ts[n-1].Type == token.SequenceEntryType:
		return ts[n-1].Position.Column - 1
	}
	return -1
}

// tabs finds tabs where they are neither text nor comment. Nobody sees them,
// and the scanner drops or misplaces what is around them.
func (sc *scanned) tabs(s *source) Problems {
	var problems Problems
	for n := 1; n <= len(s.starts); n++ {
		line := s.line(n)
		i := bytes.IndexByte(line, '\t')
		if i < 0 || sc.inBlock[n] {
			continue
		}
		at := s.posOf(s.starts[n-1] + i)
		if column, ok := sc.comments[n]; ok && at.Col >= column {
			continue
		}
		p := s.problem(at, "a tab")
		p.Hint = `indent with spaces; in text write "\t", in double quotes, or use a block ("|")`
		problems = append(problems, *p)
	}
	return problems
}
