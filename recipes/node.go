package recipes

import (
	"strconv"
	"strings"
)

// nodeKind says what a node of the tree is.
type nodeKind int

const (
	null nodeKind = iota
	boolean
	number
	text
	untyped // the value of a Set: it is what is wanted in its place
	list
	mapping
)

// found names what stands in a place where something else was wanted.
func (n *node) found() string {
	switch n.kind {
	case boolean:
		return shorten(n.text)
	case number:
		return "the number " + shorten(n.text)
	case text, untyped:
		return strconv.Quote(shorten(n.text))
	case list:
		return "a list"
	case mapping:
		return "a mapping"
	}
	return "nothing"
}

// node is a value of a recipe: YAML without what this package refuses.
type node struct {
	kind    nodeKind
	text    string // of a scalar; for boolean and number as it was written
	pos     Pos
	items   []*node // of a list
	entries []entry // of a mapping, in the order of the file, keys unique
}

// entry is a key of a mapping and its value.
type entry struct {
	key   string
	pos   Pos
	value *node
}

// get finds the entry of a key.
func (n *node) get(key string) (*entry, bool) {
	for i := range n.entries {
		if n.entries[i].key == key {
			return &n.entries[i], true
		}
	}
	return nil, false
}

// only is a copy of a mapping with the keys that keep accepts.
func (n *node) only(keep func(key string) bool) *node {
	c := &node{kind: mapping, pos: n.pos}
	for _, e := range n.entries {
		if keep(e.key) {
			c.entries = append(c.entries, e)
		}
	}
	return c
}

// at joins a key to a path.
func at(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// atIndex joins a place in a list to a path.
func atIndex(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// parentPath is a path without its last key or index; empty if it has one part.
func parentPath(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// isText says whether a node fits a string.
func (n *node) isText() bool { return n.kind == text || n.kind == untyped }
