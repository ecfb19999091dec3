package boot

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// unknown stands for a variable without a known value in a word.
const unknown = '\x00'

// shell cuts GRUB's script into commands, one after the other, and puts in the
// values that variables have by then. It evaluates nothing.
type shell struct {
	text  string
	line  int // of what comes next
	value func(name string) (string, bool)
	spend func(int) bool // false ends the script
	turn  func(keyword string)
	word  strings.Builder
}

// command is the words of a command, and what is around it.
type command struct {
	words  []string
	line   int
	opens  bool // a block begins behind it
	closes bool // a block ends; there are no words
}

// next gives the next command, false at the end.
func (s *shell) next() (c command, ok bool) {
	for s.text != "" {
		line := s.line
		word, bare := s.scan()
		first := len(c.words) == 0
		switch {
		case bare && word == "":
			s.stepOver()
			if !first {
				return c, true
			}
		case !s.spend(len(word)):
			return command{}, false
		case bare && word == "{":
			c.opens = true
			return c, true
		case bare && word == "}" && first:
			return command{line: line, closes: true}, true
		case bare && first && s.keyword(word):
		default:
			if first {
				c.line = line
			}
			c.words = append(c.words, word)
		}
	}
	return c, len(c.words) > 0
}

// stepOver steps over what ends a command.
func (s *shell) stepOver() {
	if s.text != "" {
		if s.text[0] == '\n' {
			s.line++
		}
		s.text = s.text[1:]
	}
}

// keyword says whether a word in front of a command is none of it.
func (s *shell) keyword(word string) bool {
	if !slices.Contains([]string{"if", "then", "else", "elif", "fi", "while", "until", "do", "done", "!"}, word) {
		return false
	}
	s.turn(word)
	return true
}

// scan reads a word. It is bare if no part of it is quoted, and empty besides
// where the command ends.
func (s *shell) scan() (word string, bare bool) {
	s.word.Reset()
	bare = true
	s.skipBlanks()
	if strings.HasPrefix(s.text, "#") {
		s.text = s.text[indexOr(s.text, '\n'):]
	}
	for s.text != "" {
		switch s.text[0] {
		case '\n', ';', ' ', '\t', '\r':
			return s.word.String(), bare
		case '\\':
			s.escaped()
		case '\'':
			bare = false
			s.literal()
		case '"':
			bare = false
			s.quoted()
		case '$':
			bare = false // also what expands to nothing is a word
			s.variable()
		default:
			s.take()
		}
	}
	return s.word.String(), bare
}

// skipBlanks skips what stands between words, which may be the end of a line
// behind a backslash.
func (s *shell) skipBlanks() {
	for {
		s.text = strings.TrimLeft(s.text, " \t\r")
		if !strings.HasPrefix(s.text, "\\\n") {
			return
		}
		s.text = s.text[2:]
		s.line++
	}
}

func indexOr(s string, b byte) int {
	if i := strings.IndexByte(s, b); i >= 0 {
		return i
	}
	return len(s)
}

// take takes one character as it is.
func (s *shell) take() {
	r, n := utf8.DecodeRuneInString(s.text)
	if r == '\n' {
		s.line++
	}
	if r != unknown {
		s.word.WriteString(s.text[:n])
	}
	s.text = s.text[n:]
}

// escaped takes what is behind a backslash; a line goes on behind one at its end.
func (s *shell) escaped() {
	s.text = s.text[1:]
	if strings.HasPrefix(s.text, "\n") {
		s.line++
		s.text = s.text[1:]
	} else if s.text != "" {
		s.take()
	}
}

func (s *shell) literal() {
	s.text = s.text[1:]
	n := indexOr(s.text, '\'')
	s.line += strings.Count(s.text[:n], "\n")
	s.word.WriteString(strings.ReplaceAll(s.text[:n], string(unknown), ""))
	s.text = s.text[min(n+1, len(s.text)):]
}

func (s *shell) quoted() {
	s.text = s.text[1:]
	for s.text != "" && s.text[0] != '"' {
		switch s.text[0] {
		case '$':
			s.variable()
		case '\\':
			s.escaped()
		default:
			s.take()
		}
	}
	s.text = s.text[min(1, len(s.text)):]
}

// variable puts in the value of $name or ${name}.
func (s *shell) variable() {
	name, rest := cutVariable(s.text[1:])
	s.text = rest
	value, ok := s.value(name)
	switch {
	case ok && s.spend(len(value)):
		s.word.WriteString(value)
	case !ok && name != "":
		s.word.WriteRune(unknown)
	}
}

// cutVariable cuts the name of a variable off a text, behind its $.
func cutVariable(text string) (name, rest string) {
	if braced, ok := strings.CutPrefix(text, "{"); ok {
		if name, rest, ok := strings.Cut(braced, "}"); ok {
			return name, rest
		}
	}
	i := 0
	for i < len(text) && (text[i] == '_' || text[i]|0x20 >= 'a' && text[i]|0x20 <= 'z' || text[i] >= '0' && text[i] <= '9') {
		i++
	}
	return text[:i], text[i:]
}

// known joins words, without those that have a variable that is not known.
func known(words []string) string {
	var all []string
	for _, w := range words {
		if w != "" && !strings.ContainsRune(w, unknown) {
			all = append(all, w)
		}
	}
	return strings.Join(all, " ")
}
