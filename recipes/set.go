package recipes

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Set gives one value of a recipe from outside, as the command line does.
type Set struct {
	Path  string // like name, register.machined or steps[0].write.content
	Value string
}

// ParseSet reads "PATH=VALUE". The value is everything after the first equals
// sign, unchanged.
func ParseSet(s string) (Set, error) {
	path, value, ok := strings.Cut(s, "=")
	if !ok {
		return Set{}, fmt.Errorf("set %q: want PATH=VALUE", shorten(s))
	}
	if _, err := parsePath(path); err != nil {
		return Set{}, fmt.Errorf("set %q: %w", shorten(s), err)
	}
	// Keys of layers are made of JSON, which writes every invalid byte as the
	// same character: two values would share a key.
	if !utf8.ValidString(value) {
		return Set{}, fmt.Errorf("set %s: the value is not UTF-8 text", path)
	}
	return Set{Path: path, Value: value}, nil
}

// pathKey is one part of a path: a key, or a place in a list.
type pathKey struct {
	key   string
	index int
	isKey bool
}

var (
	pathSyntax = regexp.MustCompile(`^[A-Za-z0-9_-]+(\[[0-9]{1,6}\]|\.[A-Za-z0-9_-]+)*$`)
	pathParts  = regexp.MustCompile(`[A-Za-z0-9_-]+|\[[0-9]+\]`)
	errPath    = errors.New("want a path such as name or steps[0].write.content")
)

func parsePath(path string) ([]pathKey, error) {
	if !pathSyntax.MatchString(path) {
		return nil, errPath
	}
	var keys []pathKey
	for _, part := range pathParts.FindAllString(path, maxDepth+1) {
		if part[0] == '[' {
			i, err := strconv.Atoi(part[1 : len(part)-1])
			if err != nil {
				return nil, errPath
			}
			keys = append(keys, pathKey{index: i})
			continue
		}
		keys = append(keys, pathKey{key: part, isKey: true})
	}
	if len(keys) > maxDepth {
		return nil, errPath
	}
	return keys, nil
}

// lookup finds the node at a path, nil if there is none.
func (n *node) lookup(keys []pathKey) *node {
	for _, k := range keys {
		next := n.child(k)
		if next == nil {
			return nil
		}
		n = *next
	}
	return n
}

// child is where the parent holds the node of one key.
func (n *node) child(k pathKey) **node {
	if k.isKey && n.kind == mapping {
		if e, ok := n.get(k.key); ok {
			return &e.value
		}
	}
	if !k.isKey && n.kind == list && k.index < len(n.items) {
		return &n.items[k.index]
	}
	return nil
}

// apply puts the value of a Set in its place. Keys that are missing are added,
// items of lists are not.
func (n *node) apply(s Set) error {
	keys, err := parsePath(s.Path)
	if err != nil {
		return err
	}
	pos := Pos{set: s.Path}
	path := ""
	for _, k := range keys {
		if k.isKey && n.kind == null {
			*n = node{kind: mapping, pos: n.pos}
		}
		next := n.child(k)
		if next == nil {
			if err := n.cannotHold(k, path); err != nil {
				return err
			}
			n.entries = append(n.entries, entry{key: k.key, pos: pos, value: &node{pos: pos}})
			next = &n.entries[len(n.entries)-1].value
		}
		n = *next
		path = k.join(path)
	}
	*n = node{kind: untyped, text: s.Value, pos: pos}
	return nil
}

// cannotHold says why a node can have no such child, nil if it can.
func (n *node) cannotHold(k pathKey, path string) error {
	what := path
	if what == "" {
		what = "the recipe"
	}
	switch {
	case k.isKey && n.kind == mapping:
		return nil
	case k.isKey:
		return fmt.Errorf("%s is %s, not a mapping", what, n.found())
	case n.kind != list:
		return fmt.Errorf("%s is %s, not a list", what, n.found())
	case len(n.items) == 0:
		return fmt.Errorf("%s is empty", what)
	}
	return fmt.Errorf("%s ends at %s", what, atIndex(path, len(n.items)-1))
}

func (k pathKey) join(path string) string {
	if k.isKey {
		return at(path, k.key)
	}
	return atIndex(path, k.index)
}
