package recipes

import (
	"fmt"
	"reflect"
)

// Options are what stands after the kind of a step or an assertion. They stay
// as they were written, with their positions, until the kind decodes them.
type Options struct {
	file string
	path string
	pos  Pos // of the kind's key
	node *node
	// common are the keys that stand beside the kind and are no options of it.
	common []string
}

// ScalarUnmarshaler is a target of [Options.Decode] that has a short form: one
// text in place of a mapping, as in "run: apt-get clean".
type ScalarUnmarshaler interface{ FromScalar(string) error }

// ListUnmarshaler is a target of [Options.Decode] that has a short form: a list
// of texts in place of a mapping, as in "run: [apt-get, clean]".
type ListUnmarshaler interface{ FromList([]string) error }

// BoolUnmarshaler is a target of [Options.Decode] that has a short form: true
// or false in place of a mapping, as in "upgrade: true".
type BoolUnmarshaler interface{ FromBool(bool) error }

// Decode reads the options into a struct, by the yaml tags of its fields, and
// gives every problem at once. Fields without a tag are left alone; so are
// those that the recipe does not mention.
//
// A field is a string, bool, int, [Duration], a struct like this one, a
// pointer to, a slice of or a map (by string) of those. A string takes only
// text: 0644 without quotes is a number, and which digits were meant is
// anybody's guess.
func (o Options) Decode(into any) Problems {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("recipes: decode into %T, which is no pointer to a struct", into))
	}
	d := decoder{file: o.file, common: o.common}
	d.value(o.node, o.path, v.Elem())
	return d.problems.Sorted()
}

// Read decodes the options and validates them, and gives the problems of both
// at once. What could not be decoded is empty, so what the validator says of
// that, or of the whole that it is part of, is left out.
func (o Options) Read(into Validator) Problems {
	problems := o.Decode(into)
	undecoded := map[string]bool{}
	for _, p := range problems {
		for path := p.Path; path != ""; path = parentPath(path) {
			undecoded[path] = true
		}
	}
	for _, p := range into.Validate(o) {
		if !undecoded[p.Path] {
			problems = append(problems, p)
		}
	}
	return problems.Sorted()
}

// Problem is a problem with one field of the options, for what Decode cannot
// judge. The field may be a path ("install[2]"), or empty for the options as
// a whole. A field that the recipe does not mention is reported where its
// options begin.
func (o Options) Problem(field, format string, args ...any) Problem {
	pos, path := o.pos, o.path
	if o.node == nil || field == "" {
		return newProblem(o.file, pos, path, "%s", fmt.Sprintf(format, args...))
	}
	if o.node.kind == mapping || o.node.kind == null {
		path = at(path, field)
	}
	if keys, err := parsePath(field); err == nil {
		if n := o.node.lookup(keys); n != nil {
			pos = n.pos
		}
	}
	return newProblem(o.file, pos, path, "%s", fmt.Sprintf(format, args...))
}
