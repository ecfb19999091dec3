package recipes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// What a recipe may be: far more than a person or a generator of recipes
// needs, and little enough that the worst input is refused in half a second.
//
// The YAML package cannot be stopped before it has made a node of every value,
// and what is in brackets it keeps as tokens until they are closed: up to a
// kilobyte for each mark that separates values. So marks are counted before.
// Text has them too, but not so many.
const (
	maxBytes  = 1 << 20
	maxMarks  = 100_000 // of : , [ ] { } ? and of - before a space
	maxValues = 40_000
	maxDepth  = 32 // of blocks, and of brackets within them
)

// readTree reads the YAML of a recipe. The tree is nil if there is none to
// look at further.
func readTree(file string, data []byte) (*node, Problems) {
	r := reader{file: file}
	document := r.load(r.clean(data))
	if len(r.problems) > 0 {
		return nil, r.problems
	}
	root := r.node(document, "")
	if r.refused {
		return nil, r.problems
	}
	if root.kind == null {
		r.add(Pos{Line: 1, Col: 1}, "", "the recipe is empty")
		return nil, r.problems
	}
	return root, r.problems
}

// reader makes a tree of what the YAML package loads.
type reader struct {
	file     string
	problems Problems
	values   int
	refused  bool // a problem is with the YAML itself: what it might mean is not looked at
}

func (r *reader) add(at Pos, path, format string, args ...any) {
	r.problems = append(r.problems, newProblem(r.file, at, path, format, args...))
}

// clean refuses what is not the text of a recipe, and makes all line breaks
// "\n".
func (r *reader) clean(data []byte) []byte {
	if len(data) > maxBytes {
		r.add(Pos{Line: 1, Col: 1}, "", tooLarge)
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
	if countMarks(data) > maxMarks {
		r.problems = Problems{{File: r.file, Message: "too many values: not a recipe",
			Hint: "large files are better copied from beside the recipe"}}
		return nil
	}
	at := Pos{Line: 1, Col: 1}
	for i := 0; i < len(data); at.Col++ {
		c, n := utf8.DecodeRune(data[i:])
		switch {
		case c == utf8.RuneError && n == 1:
			r.add(at, "", "byte 0x%02x is not UTF-8 text", data[i])
			return nil
		case c == '\n':
			at = Pos{Line: at.Line + 1}
		case c != '\t' && invisible(c):
			r.add(at, "", "control character %U: write it as an escape in double quotes", c)
			return nil
		case c == '%' && at.Col == 1:
			r.refuse(at, "directives (%)")
			return nil
		}
		i += n
	}
	return data
}

func countMarks(data []byte) int {
	marks := bytes.Count(data, []byte("- ")) + bytes.Count(data, []byte("-\n"))
	for _, c := range []byte(":,[]{}?") {
		marks += bytes.Count(data, []byte{c})
	}
	return marks
}

const tooLarge = "larger than 1 MiB: not a recipe"

// invisible says whether a character is one that readers do not see and that
// the YAML package refuses, skips or takes for a line break.
func invisible(c rune) bool {
	return c < ' ' || 0x7f <= c && c < 0xa0 || slices.Contains([]rune{0x2028, 0x2029, 0xfeff, 0xfffe, 0xffff}, c)
}

// policy is what the YAML package asks while it loads: it bounds the depth of
// its recursion, and never follows an alias. Those are refused as nodes, all
// of them at once.
type policy struct{}

var errTooDeep = fmt.Errorf("nested too deep: more than %d levels", maxDepth)

func (policy) CheckDepth(depth int, _ *yaml.DepthContext) error {
	if depth > maxDepth {
		return errTooDeep
	}
	return nil
}

func (policy) CheckAlias(int, int) error { return nil }

func (p policy) NewAliasDataContext(yaml.AliasDataServices) (yaml.AliasDataContext, error) {
	return p, nil
}

func (policy) ResolveAlias(string) (*yaml.Node, bool, error) {
	return &yaml.Node{Kind: yaml.ScalarNode}, true, nil
}

func (policy) DefineAnchor(string, *yaml.Node) error { return nil }
func (policy) BeginDocument() error                  { return nil }
func (policy) EndDocument() error                    { return nil }

// load gives the one document of a recipe.
func (r *reader) load(data []byte) *yaml.Node {
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithPlugin(policy{}))
	if err != nil {
		panic(err) // only if the options contradicted each other
	}
	var first, second yaml.Node // a node without a kind where there is no document
	err = loader.Load(&first)
	if err == nil {
		err = loader.Load(&second)
	}
	switch {
	case err == nil:
		r.add(Pos{Line: second.Line, Col: second.Column}, "", "more than one document: a file is one recipe")
	case err != io.EOF:
		r.notYAML(err, data)
	}
	return &first
}

// notYAML makes a problem of the YAML package's error. What is still open at
// the end of the file is reported where it begins.
func (r *reader) notYAML(err error, data []byte) {
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		r.add(Pos{Line: 1, Col: 1}, "", "not YAML: %v", err)
		return
	}
	mark, message := e.Mark, "not YAML: "+e.Message
	switch {
	case e.Message == errTooDeep.Error():
		message = e.Message
	case e.ContextMsg != "":
		message = "not YAML: " + e.ContextMsg + ": " + e.Message
		if mark.Index >= utf8.RuneCount(data) {
			mark = e.ContextMark
		}
	}
	at := Pos{Line: mark.Line, Col: mark.Column}
	lastLine := data[bytes.LastIndexByte(data, '\n')+1:]
	end := Pos{Line: 1 + bytes.Count(data, []byte("\n")), Col: 1 + utf8.RuneCount(lastLine)}
	if at.Line > end.Line { // the package ends the last line if the file does not
		at = end
	}
	r.add(at, "", "%s", message)
}

// node converts a node and all below it.
func (r *reader) node(n *yaml.Node, path string) *node {
	out := &node{pos: Pos{Line: n.Line, Col: n.Column}}
	if r.values++; r.values == maxValues+1 {
		r.add(out.pos, "", "too many values: not a recipe")
		r.refused = true
	}
	if r.tooMany() {
		return out
	}
	switch {
	case n.Kind == yaml.AliasNode:
		r.refuse(out.pos, "aliases (*)")
	case n.Anchor != "":
		r.refuse(out.pos, "anchors (&)")
	case n.Style&yaml.TaggedStyle != 0 || n.Tag == "!":
		r.refuse(out.pos, "tags (!)")
	case n.ShortTag() == "!!merge":
		r.refuse(out.pos, "merge keys (<<)")
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return r.node(n.Content[0], path)
	case yaml.SequenceNode:
		out.kind = list
		for i := 0; i < len(n.Content) && !r.tooMany(); i++ {
			out.items = append(out.items, r.node(n.Content[i], atIndex(path, i)))
		}
	case yaml.MappingNode:
		out.kind = mapping
		r.entries(out, n.Content, path)
	case yaml.ScalarNode:
		out.kind, out.text = scalarKind(n), n.Value
	case yaml.AliasNode:
		out.text = n.Value
	}
	return out
}

func (r *reader) tooMany() bool { return r.values > maxValues }

// refuse adds a part of YAML that a recipe has no use for. Without anchors
// there are no aliases to explode, without tags no types but the evident ones.
func (r *reader) refuse(at Pos, what string) {
	p := newProblem(r.file, at, "", "%s are not part of a recipe", what)
	p.Hint = "if it is meant as text, quote it"
	r.problems, r.refused = append(r.problems, p), true
}

// scalarKind says what a scalar is. A date is text, as it is written.
func scalarKind(n *yaml.Node) nodeKind {
	switch n.ShortTag() {
	case "!!null":
		return null
	case "!!bool":
		return boolean
	case "!!int", "!!float":
		return number
	}
	return text
}

// entries converts the keys and values of a mapping, of which the first of
// each key counts.
func (r *reader) entries(out *node, content []*yaml.Node, path string) {
	seen := make(map[string]Pos)
	for i := 0; i+1 < len(content) && !r.tooMany(); i += 2 {
		key := r.node(content[i], path)
		where := at(path, label(key.text))
		value := r.node(content[i+1], where)
		if key.kind == list || key.kind == mapping {
			r.refuse(key.pos, "keys that are no text")
			continue
		}
		if first, ok := seen[key.text]; ok {
			r.add(key.pos, where, "duplicate key, first on line %d", first.Line)
			continue
		}
		seen[key.text] = key.pos
		out.entries = append(out.entries, entry{key: key.text, pos: key.pos, value: value})
	}
}
