package recipes

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/goccy/go-yaml/token"
)

// refused are the parts of YAML that a recipe has no use for. Without anchors
// there are no aliases to explode, without tags no types but the evident ones.
var refused = map[token.Type]string{
	token.AnchorType:      "anchors (&) are not part of a recipe",
	token.AliasType:       "aliases (*) are not part of a recipe",
	token.MergeKeyType:    "merge keys (<<) are not part of a recipe",
	token.TagType:         "tags (!) are not part of a recipe",
	token.DirectiveType:   "directives (%) are not part of a recipe",
	token.MappingKeyType:  "explicit keys (?) are not part of a recipe",
	token.DocumentEndType: "more than one document: a file is one recipe",
}

// checkTokens refuses what must not reach the parser: features, depth and
// mere number. The tokens it returns are without comments.
func (s *source) checkTokens(in token.Tokens) (token.Tokens, Problems) {
	var (
		problems Problems
		nest     nesting
		out      = make(token.Tokens, 0, len(in))
		sc       = scanned{inBlock: map[int]bool{}, comments: map[int]int{}}
	)
	for _, t := range in {
		inBlock := sc.header != nil
		if !sc.add(s, t, out) {
			return nil, append(problems, *s.unclearBlock(t))
		}
		if t.Type == token.CommentType {
			continue
		}
		if len(out) == maxTokens {
			return nil, append(problems, *s.problem(posOf(t), "too many values: not a recipe"))
		}
		if nest.add(t, out) > maxDepth {
			return nil, append(problems, *s.problem(posOf(t), "nested too deep: more than %d levels", maxDepth))
		}
		p := s.checkToken(t, len(out) == 0)
		if p == nil && !inBlock && len(problems) == 0 { // a tag or a tab moves what is after it
			p = s.checkText(t)
		}
		if p != nil {
			problems = append(problems, *p)
		}
		out = nest.join(append(out, t))
	}
	if len(in) > 0 && !sc.atEnd(s) {
		return nil, append(problems, *s.unclearBlock(in[len(in)-1]))
	}
	tabs := sc.tabs(s)
	tabbed := make(map[int]bool, len(tabs))
	for _, p := range tabs {
		tabbed[p.Line] = true
	}
	problems = slices.DeleteFunc(problems, func(p Problem) bool { return tabbed[p.Line] }) // caused by the tab
	return out, append(problems, tabs...)
}

const blockHint = "its first line must not begin with a tab, blank lines before that not be longer than its indentation, and an empty one is written \"\""

func (s *source) unclearBlock(t *token.Token) *Problem {
	p := s.problem(posOf(t), "the block of text at or before this place is not clear")
	p.Hint = blockHint
	return p
}

func (s *source) checkToken(t *token.Token, first bool) *Problem {
	message, bad := refused[t.Type]
	if t.Type == token.DocumentHeaderType && !first {
		message, bad = refused[token.DocumentEndType], true
	}
	if !bad {
		return nil
	}
	p := s.problem(posOf(t), "%s", message)
	switch t.Type {
	case token.AnchorType, token.AliasType, token.TagType, token.DirectiveType:
		p.Hint = "if it is meant as text, quote it"
	}
	return p
}

// nesting follows how deep the parser will go.
type nesting struct {
	flow   []token.Type // open brackets
	blocks []int        // columns of the open block lists and mappings
}

// add takes account of a token and returns the depth it is at.
func (n *nesting) add(t *token.Token, before token.Tokens) int {
	switch t.Type {
	case token.SequenceStartType, token.MappingStartType:
		n.flow = append(n.flow, t.Type)
	case token.SequenceEndType, token.MappingEndType:
		n.flow = n.flow[:max(0, len(n.flow)-1)]
	case token.SequenceEntryType:
		n.block(t.Position.Column)
	case token.MappingValueType:
		if len(n.flow) == 0 && len(before) > 0 {
			n.block(before[len(before)-1].Position.Column)
		}
	}
	return len(n.flow) + len(n.blocks)
}

func (n *nesting) block(column int) {
	for len(n.blocks) > 0 && n.blocks[len(n.blocks)-1] >= column {
		n.blocks = n.blocks[:len(n.blocks)-1]
	}
	n.blocks = append(n.blocks, column)
}

// join mends what the scanner does to text with a colon in a list inside
// braces: {install: [libc6:i386]} comes as a key and its value, though without
// a space the colon is part of the text.
func (n *nesting) join(ts token.Tokens) token.Tokens {
	i := len(ts) - 3
	if i < 0 || len(n.flow) == 0 || n.flow[len(n.flow)-1] != token.SequenceStartType {
		return ts
	}
	key, colon, value := ts[i], ts[i+1], ts[i+2]
	if colon.Type != token.MappingValueType || !plain(key) || !plain(value) ||
		!follows(key.Position, utf8.RuneCountInString(key.Value), colon.Position) ||
		!follows(colon.Position, 1, value.Position) {
		return ts
	}
	joined := token.String(key.Value+":"+value.Value, key.Origin+":"+value.Origin, key.Position)
	joined.Prev = key.Prev
	return append(ts[:i], joined)
}

// plain says whether a token is an unquoted scalar.
func plain(t *token.Token) bool {
	switch t.Type {
	case token.StringType, token.NullType, token.BoolType, token.IntegerType, token.BinaryIntegerType,
		token.OctetIntegerType, token.HexIntegerType, token.FloatType, token.InfinityType, token.NanType:
		return true
	}
	return false
}

func follows(a *token.Position, size int, b *token.Position) bool {
	return a.Line == b.Line && a.Column+size == b.Column
}

// checkText compares the text of a token with the source.
func (s *source) checkText(t *token.Token) *Problem {
	switch {
	case t.Type == token.DoubleQuoteType || t.Type == token.SingleQuoteType:
		return s.checkQuoted(t)
	case plain(t):
		return s.checkPlain(t)
	}
	return nil
}

// checkPlain refuses text without quotes that goes over several lines: which
// of its spaces and line breaks count, readers of YAML disagree. For the rest
// it holds that the scanner's text is what the file says.
func (s *source) checkPlain(t *token.Token) *Problem {
	at, i := s.locate(posOf(t))
	if bytes.HasPrefix(s.data[i:], []byte(t.Value)) {
		return nil
	}
	// The scanner places text too far right by the spaces at the end of its line.
	line := s.line(at.Line)
	shift := len(line) - len(bytes.TrimRight(line, " "))
	if shift <= i && bytes.HasPrefix(s.data[i-shift:], []byte(t.Value)) {
		t.Position.Column -= shift
		return nil
	}
	return s.severalLines(at)
}

func (s *source) severalLines(at Pos) *Problem {
	p := s.problem(at, "text over several lines")
	p.Hint = `write it as a block, after "|"`
	return p
}

// checkQuoted refuses quoted text over several lines, and escapes that the
// scanner would take for some other character: digits that are none, and
// halves of a pair.
func (s *source) checkQuoted(t *token.Token) *Problem {
	at, i := s.locate(posOf(t))
	rest := s.line(at.Line)[i-s.starts[at.Line-1]:]
	quote := byte('"')
	if t.Type == token.SingleQuoteType {
		quote = '\''
	}
	if len(rest) == 0 || rest[0] != quote {
		return s.severalLines(at) // only a line break moves the scanner off
	}
	for n := 1; n < len(rest); n++ {
		switch {
		case rest[n] == quote && quote == '\'' && n+1 < len(rest) && rest[n+1] == quote:
			n++
		case rest[n] == quote:
			return nil
		case rest[n] == '\\' && quote == '"' && n+1 < len(rest):
			size, ok := escape(rest[n+1:])
			if !ok {
				return s.problem(s.posOf(i+n), `\%c and what follows it is no character`, rest[n+1])
			}
			n += size
		}
	}
	return s.severalLines(at)
}

// escape is the length of an escape after its backslash, and whether it stands
// for a character. Those without digits the scanner checks.
func escape(b []byte) (int, bool) {
	size := map[byte]int{'x': 2, 'u': 4, 'U': 8}[b[0]]
	if size == 0 {
		return 1, true
	}
	r, ok := codePoint(b[1:], size)
	if ok && utf16.IsSurrogate(r) && bytes.HasPrefix(b[1+size:], []byte(`\u`)) {
		low, lowOK := codePoint(b[3+size:], size)
		return 3 + 2*size, lowOK && utf16.DecodeRune(r, low) != utf8.RuneError
	}
	return 1 + size, ok && utf8.ValidRune(r)
}

// codePoint reads the hexadecimal digits at the start of b.
func codePoint(b []byte, digits int) (rune, bool) {
	if len(b) < digits {
		return 0, false
	}
	var r uint32
	for _, d := range b[:digits] {
		v := strings.IndexByte("0123456789abcdef", d|0x20)
		if d < '0' || v < 0 {
			return 0, false
		}
		r = r<<4 | uint32(v)
	}
	return rune(r), r <= utf8.MaxRune
}
