package recipes

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// Set gives one value of a recipe from outside, as the command line does.
type Set struct {
	Path  string // like name, steps[0].write.content or, by the name of a step, steps[motd].write.content
	Value string
}

// ParseSet reads "PATH=VALUE". The value is everything after the first equals
// sign, unchanged. An error does not repeat what it is about.
func ParseSet(s string) (Set, error) {
	path, value, ok := strings.Cut(s, "=")
	if !ok {
		return Set{}, errors.New("want PATH=VALUE")
	}
	if _, err := parsePath(path); err != nil {
		return Set{}, err
	}
	// Keys of layers are made of JSON, which writes every invalid byte as the
	// same character: two values would share a key.
	if !utf8.ValidString(value) {
		return Set{}, errors.New("the value is not UTF-8 text")
	}
	return Set{Path: path, Value: value}, nil
}

// pathKey is one part of a path: a key, or a place in a list, by its number or by
// the name that the item there has.
type pathKey struct {
	key   string
	index int
	name  string
	isKey bool
}

var (
	pathSyntax = lazyregexp.New(`^[A-Za-z0-9_-]+(\[[^][]+\]|\.[A-Za-z0-9_-]+)*$`)
	pathParts  = lazyregexp.New(`[A-Za-z0-9_-]+|\[[^][]+\]`)
	errPath    = errors.New("want a path such as name, steps[0].write.content or steps[NAME].write.content")
)

func parsePath(path string) ([]pathKey, error) {
	if !pathSyntax().MatchString(path) {
		return nil, errPath
	}
	var keys []pathKey
	for _, part := range pathParts().FindAllString(path, maxDepth+1) {
		if part[0] != '[' {
			keys = append(keys, pathKey{key: part, isKey: true})
			continue
		}
		place := part[1 : len(part)-1]
		if i, err := strconv.ParseUint(place, 10, 31); err == nil {
			keys = append(keys, pathKey{index: int(i)})
			continue
		}
		keys = append(keys, pathKey{name: place})
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
	if !k.isKey && n.kind == list {
		if places := n.places(k); len(places) == 1 {
			return &n.items[places[0]]
		}
	}
	return nil
}

// places are where in a list the items are that a part of a path means: several
// may have one name.
func (n *node) places(k pathKey) (all []int) {
	for i, item := range n.items {
		e, named := item.get("name")
		if k.name == "" && i == k.index || k.name != "" && named && e.value.isText() && e.value.text == k.name {
			all = append(all, i)
		}
	}
	return all
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
	case k.name != "":
		return n.notOne(k, what)
	}
	return fmt.Errorf("%s ends at %s", what, atIndex(path, len(n.items)-1))
}

// notOne says why a name is not that of one item.
func (n *node) notOne(k pathKey, path string) error {
	var places []string
	for _, i := range n.places(k) {
		places = append(places, atIndex(path, i))
	}
	if len(places) == 0 {
		return fmt.Errorf("nothing in %s has the name %s", path, label(k.name))
	}
	return fmt.Errorf("several have the name %s: say which, %s", label(k.name), strings.Join(places, " or "))
}

func (k pathKey) join(path string) string {
	switch {
	case k.isKey:
		return at(path, k.key)
	case k.name != "":
		return path + "[" + k.name + "]"
	}
	return atIndex(path, k.index)
}
