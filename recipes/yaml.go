package recipes

import (
	"errors"
	"fmt"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// readTree reads the YAML of a recipe. The tree is nil if there is none to
// look at further.
func readTree(file string, data []byte) (*node, Problems) {
	src, bad := newSource(file, data)
	if bad != nil {
		return nil, Problems{*bad}
	}
	var (
		root     *node
		problems Problems
	)
	if p := src.guard(func() { root, problems = src.read() }); p != nil {
		return nil, Problems{*p}
	}
	return root, problems
}

// guard makes a problem of a panic: the YAML package has some left.
func (s *source) guard(f func()) (p *Problem) {
	defer func() {
		if r := recover(); r != nil {
			p = s.problem(Pos{Line: 1, Col: 1}, "not YAML that can be read: %v", r)
		}
	}()
	f()
	return nil
}

func (s *source) read() (*node, Problems) {
	tokens := lexer.Tokenize(string(s.data))
	if t := tokens.InvalidToken(); t != nil {
		return nil, Problems{*s.problem(posOf(t), "not YAML: %s", t.Error)}
	}
	tokens, problems := s.checkTokens(tokens)
	if len(problems) > 0 {
		return nil, problems
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, Problems{*s.syntaxProblem(err)}
	}
	c := converter{src: s}
	var root *node
	if len(file.Docs) > 0 && file.Docs[0].Body != nil {
		root = c.node(file.Docs[0].Body, "")
	}
	if len(file.Docs) > 1 {
		return nil, Problems{*s.problem(Pos{Line: 1, Col: 1}, "more than one document: a file is one recipe")}
	}
	if root == nil || root.kind == null {
		return nil, Problems{*s.problem(Pos{Line: 1, Col: 1}, "the recipe is empty")}
	}
	return root, c.problems
}

// syntaxProblem keeps the message and the place of the parser's error, not its
// excerpt of the source.
func (s *source) syntaxProblem(err error) *Problem {
	var e interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if !errors.As(err, &e) {
		return s.problem(Pos{Line: 1, Col: 1}, "not YAML: %v", err)
	}
	at := Pos{Line: 1, Col: 1}
	if t := e.GetToken(); t != nil {
		at = posOf(t)
	}
	return s.problem(at, "not YAML: %s", e.GetMessage())
}

func posOf(t *token.Token) Pos {
	if t == nil || t.Position == nil {
		return Pos{Line: 1, Col: 1}
	}
	return Pos{Line: t.Position.Line, Col: t.Position.Column}
}

// converter makes a tree of what the parser built.
type converter struct {
	src      *source
	problems Problems
}

func (c *converter) node(n ast.Node, path string) *node {
	out := &node{pos: c.src.clamp(posOf(n.GetToken()))}
	switch n := n.(type) {
	case *ast.NullNode:
	case *ast.BoolNode:
		out.kind, out.text = boolean, n.Token.Value
	case *ast.IntegerNode:
		out.kind, out.text = number, n.Token.Value
	case *ast.FloatNode:
		out.kind, out.text = number, n.Token.Value
	case *ast.InfinityNode:
		out.kind, out.text = number, n.Token.Value
	case *ast.NanNode:
		out.kind, out.text = number, n.Token.Value
	case *ast.StringNode:
		out.kind, out.text = text, n.Value
	case *ast.LiteralNode:
		out.kind, out.text = text, n.Value.Value
		out.pos = c.src.clamp(posOf(n.Start))
	case *ast.SequenceNode:
		out.kind = list
		for i, item := range n.Values {
			out.items = append(out.items, c.node(item, atIndex(path, i)))
		}
	case *ast.MappingNode:
		out.kind = mapping
		c.entries(out, n.Values, path)
		if !n.IsFlowStyle && len(out.entries) > 0 {
			out.pos = out.entries[0].pos // not that of its colon
		}
	case *ast.MappingValueNode:
		out.kind = mapping
		c.entries(out, []*ast.MappingValueNode{n}, path)
		out.pos = out.entries[0].pos
	default:
		c.add(out.pos, path, "YAML's %s has no place in a recipe", n.Type().YAMLName())
	}
	return out
}

// entries converts the entries of a mapping, of which the first of each key
// counts.
func (c *converter) entries(out *node, values []*ast.MappingValueNode, path string) {
	seen := make(map[string]Pos, len(values))
	for _, v := range values {
		key := c.node(v.Key, path)
		where := at(path, key.text)
		if key.kind == null {
			key.text = v.Key.GetToken().Value
			where = at(path, key.text)
		}
		value := c.node(v.Value, where)
		if first, ok := seen[key.text]; ok {
			c.add(key.pos, where, "duplicate key, first on line %d", first.Line)
			continue
		}
		seen[key.text] = key.pos
		out.entries = append(out.entries, entry{key: key.text, pos: key.pos, value: value})
	}
}

func (c *converter) add(at Pos, path, format string, args ...any) {
	c.problems = append(c.problems, newProblem(c.src.file, at, path, "%s", fmt.Sprintf(format, args...)))
}
