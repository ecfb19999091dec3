package recipes

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// decoder reads nodes into Go values and collects what does not fit.
type decoder struct {
	file     string
	problems Problems
	common   []string // keys of the step that the options are part of
}

func (d *decoder) add(pos Pos, path, hint, format string, args ...any) {
	p := newProblem(d.file, pos, path, format, args...)
	p.Hint = hint
	d.problems = append(d.problems, p)
}

func (d *decoder) wrongType(n *node, path, want, hint string) {
	d.add(n.pos, path, hint, "want %s, found %s", want, n.found())
}

func (d *decoder) value(n *node, path string, v reflect.Value) {
	if v.Kind() == reflect.Pointer {
		p := reflect.New(v.Type().Elem())
		d.value(n, path, p.Elem())
		v.Set(p)
		return
	}
	if v.Type() == reflect.TypeFor[Duration]() {
		d.duration(n, path, v)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, path, v)
	case reflect.String:
		if s, ok := d.text(n, path, "text"); ok {
			v.SetString(s)
		}
	case reflect.Bool:
		d.boolean(n, path, v)
	case reflect.Int:
		d.integer(n, path, v)
	case reflect.Slice:
		d.list(n, path, v)
	case reflect.Map:
		d.table(n, path, v)
	default:
		panic("recipes: decode into a " + v.Type().String())
	}
}

// text is what a node says if it is text. A number or a boolean is not: YAML
// readers disagree on what 0644, 1.10 or 1_000 say.
func (d *decoder) text(n *node, path, want string) (string, bool) {
	switch n.kind {
	case text, untyped:
		return n.text, true
	case number, boolean:
		d.wrongType(n, path, want, `quote it: "`+shorten(n.text)+`"`)
	default:
		d.wrongType(n, path, want, "")
	}
	return "", false
}

func (d *decoder) duration(n *node, path string, v reflect.Value) {
	const want = "a duration such as 90s, 12h, 7d or 2w"
	if n.kind != text && n.kind != untyped {
		d.wrongType(n, path, want, "")
		return
	}
	t, err := ParseDuration(n.text)
	if err != nil {
		d.add(n.pos, path, "", "%q: %v", shorten(n.text), err)
		return
	}
	v.SetInt(int64(t))
}

func (d *decoder) boolean(n *node, path string, v reflect.Value) {
	if n.kind == boolean || n.kind == untyped {
		switch n.text {
		case "true", "True", "TRUE":
			v.SetBool(true)
			return
		case "false", "False", "FALSE":
			v.SetBool(false)
			return
		}
	}
	hint := ""
	if n.kind == text && (n.text == "true" || n.text == "false") {
		hint = "write it without quotes"
	}
	d.wrongType(n, path, "true or false", hint)
}

func (d *decoder) integer(n *node, path string, v reflect.Value) {
	hint := ""
	switch n.kind {
	case number, untyped:
		if i, err := strconv.Atoi(n.text); err == nil {
			v.SetInt(int64(i))
			return
		}
	case text:
		if _, err := strconv.Atoi(n.text); err == nil {
			hint = "write it without quotes"
		}
	}
	d.wrongType(n, path, "a whole number", hint)
}

func (d *decoder) list(n *node, path string, v reflect.Value) {
	if n.kind != list {
		hint := ""
		if n.kind == text {
			hint = "put it in brackets"
		}
		d.wrongType(n, path, "a list", hint)
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
	for i, item := range n.items {
		d.value(item, atIndex(path, i), out.Index(i))
	}
	v.Set(out)
}

func (d *decoder) table(n *node, path string, v reflect.Value) {
	if n.kind != mapping {
		d.wrongType(n, path, "a mapping", "")
		return
	}
	out := reflect.MakeMapWithSize(v.Type(), len(n.entries))
	for _, e := range n.entries {
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(e.value, at(path, label(e.key)), item)
		out.SetMapIndex(reflect.ValueOf(e.key).Convert(v.Type().Key()), item)
	}
	v.Set(out)
}

// structure reads a mapping, or one of the short forms that the struct has.
func (d *decoder) structure(n *node, path string, v reflect.Value) {
	scalar, hasScalar := v.Addr().Interface().(ScalarUnmarshaler)
	items, hasList := v.Addr().Interface().(ListUnmarshaler)
	truth, hasBool := v.Addr().Interface().(BoolUnmarshaler)
	want := forms(hasScalar, hasList, hasBool)
	switch {
	case n.kind == null:
	case n.kind == mapping:
		d.fields(n, path, v)
	case n.kind == list && hasList:
		var l []string
		before := len(d.problems)
		d.list(n, path, reflect.ValueOf(&l).Elem())
		if len(d.problems) == before {
			d.shortForm(n, path, items.FromList(l))
		}
	case hasBool && (n.kind == boolean || n.kind == untyped && !hasScalar):
		var b bool
		before := len(d.problems)
		d.boolean(n, path, reflect.ValueOf(&b).Elem())
		if len(d.problems) == before {
			d.shortForm(n, path, truth.FromBool(b))
		}
	case n.kind != list && hasScalar:
		if s, ok := d.text(n, path, want); ok {
			d.shortForm(n, path, scalar.FromScalar(s))
		}
	default:
		d.wrongType(n, path, want, "")
	}
}

// forms says what may stand for a struct with those short forms.
func forms(scalar, list, boolean bool) string {
	want := "a mapping"
	for _, f := range []struct {
		has  bool
		name string
	}{{list, "a list"}, {scalar, "text"}, {boolean, "true or false"}} {
		if f.has && strings.Contains(want, " or a mapping") {
			want = f.name + ", " + want
		} else if f.has {
			want = f.name + " or " + want
		}
	}
	return want
}

func (d *decoder) shortForm(n *node, path string, err error) {
	if err != nil {
		d.add(n.pos, path, "", "%v", err)
	}
}

func (d *decoder) fields(n *node, path string, v reflect.Value) {
	index := map[string]int{}
	var names []string
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("yaml"); name != "" && name != "-" {
			index[name] = i
			names = append(names, name)
		}
	}
	for _, e := range n.entries {
		i, ok := index[e.key]
		if !ok {
			d.unknownKey(e, path, names)
			continue
		}
		d.value(e.value, at(path, e.key), v.Field(i))
	}
}

func (d *decoder) unknownKey(e entry, path string, known []string) {
	hint := didYouMean(e.key, known)
	if slices.Contains(d.common, e.key) {
		hint = e.key + " is a key of the step: write it one level up, beside the kind"
	}
	d.add(e.pos, at(path, label(e.key)), hint, "unknown key")
}

// into reads a node into what a pointer points to.
func (d *decoder) into(n *node, path string, pointer any) {
	d.value(n, path, reflect.ValueOf(pointer).Elem())
}
