package recipes

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

var (
	imageName = lazyregexp.New(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$`)
	envName   = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// Keys of the recipe and, beside its kind, of a step.
var (
	recipeKeys = []string{"version", "name", "base", "disk", "bootc", "ostree", "steps", "verify", "identity", "register"}
	stepKeys   = []string{"name", "env", "network", "max-age", "timeout", "hidden"}
)

// builder makes the Recipe of a tree.
type builder struct {
	decoder
	r *Recipe
}

func (b *builder) recipe(root *node) {
	if root.kind != mapping {
		b.wrongType(root, "", "a mapping with version, name, base and steps", "")
		return
	}
	if !b.version(root) {
		return // another format may have other keys
	}
	for _, e := range root.entries {
		switch e.key {
		case "version":
		case "name":
			b.name(e.value)
		case "base":
			b.base(e.value)
		case "disk":
			b.disk(e.value)
		case "bootc":
			b.bootc(e.value)
		case "ostree":
			b.ostree(e.value)
		case "steps":
			for i, item := range b.listOf(e.value, "steps") {
				b.step(i, item)
			}
		case "verify":
			for i, item := range b.listOf(e.value, "verify") {
				b.assertion(i, item)
			}
		case "identity":
			b.identity(e.value)
		case "register":
			b.field(e.value, "register", &b.r.Register)
		default:
			b.unknownKey(e, "", recipeKeys)
		}
	}
	for _, key := range []string{"name", "base"} {
		if _, ok := root.get(key); !ok {
			b.add(root.pos, key, "", "missing")
		}
	}
}

// version says whether this package reads the recipe's version of the format.
func (b *builder) version(root *node) bool {
	e, ok := root.get("version")
	if !ok {
		b.add(root.pos, "version", fmt.Sprintf("write version: %d", Version), "missing")
		return true // the rest of it may as well be looked at
	}
	before := len(b.problems)
	b.field(e.value, "version", &b.r.Version)
	if len(b.problems) > before {
		return true
	}
	if b.r.Version != Version {
		b.problems = nil
		b.add(e.value.pos, "version", "", "this is version %d of the format; this program reads version %d",
			b.r.Version, Version)
		return false
	}
	return true
}

func (b *builder) name(n *node) {
	if !b.field(n, "name", &b.r.Name) {
		return
	}
	if err := CheckName(b.r.Name); err != nil {
		b.add(n.pos, "name", "", "%q: %v", shorten(b.r.Name), err)
	}
}

// CheckName says why something cannot be the name of an image or base.
func CheckName(name string) error {
	switch {
	case !imageName().MatchString(name):
		return fmt.Errorf("want at most 64 letters, digits and . _ -, the first a letter or a digit")
	case isImageFile(name):
		return fmt.Errorf("a name, not a file: want it without %s", filepath.Ext(name))
	}
	return nil
}

// field decodes one value and says whether it fitted.
func (b *builder) field(n *node, path string, into any) bool {
	before := len(b.problems)
	b.into(n, path, into)
	return len(b.problems) == before
}

// listOf is the items of a list that may be empty.
func (b *builder) listOf(n *node, path string) []*node {
	if n.kind != list && n.kind != null {
		b.wrongType(n, path, "a list", "")
	}
	return n.items
}

func (b *builder) step(i int, n *node) {
	path := atIndex("steps", i)
	s := Step{Index: i, Pos: n.pos}
	b.r.Steps = append(b.r.Steps, s)
	kind, ok := b.kind(n, path, stepKeys)
	if !ok {
		return
	}
	s.Kind, s.Options = kind.key, b.options(kind, path, stepKeys)
	var common struct {
		Name    string            `yaml:"name"`
		Env     map[string]string `yaml:"env"`
		Network *bool             `yaml:"network"`
		MaxAge  Duration          `yaml:"max-age"`
		Timeout Duration          `yaml:"timeout"`
		Hidden  string            `yaml:"hidden"`
	}
	fits := b.field(n.only(func(key string) bool { return slices.Contains(stepKeys, key) }), path, &common)
	s.Name, s.Env, s.Network = common.Name, common.Env, common.Network
	s.MaxAge, s.Timeout, s.Hidden = common.MaxAge.Duration(), common.Timeout.Duration(), common.Hidden
	b.r.Steps[i] = s
	if e, ok := n.get("name"); ok && e.value.isText() && !isLabel(s.Name) {
		b.add(e.value.pos, at(path, "name"), "", "%q: want one line of at most 64 characters", shorten(s.Name))
	}
	for key, d := range map[string]time.Duration{"max-age": s.MaxAge, "timeout": s.Timeout} {
		if e, ok := n.get(key); ok && fits && d <= 0 {
			b.add(e.value.pos, at(path, key), "", "%q: want a duration above zero", shorten(e.value.text))
		}
	}
	if e, ok := n.get("hidden"); ok && fits && s.Hidden != HiddenAllow && s.Hidden != HiddenError {
		b.add(e.value.pos, at(path, "hidden"), "", "%q: want %s or %s", shorten(e.value.text), HiddenAllow, HiddenError)
	}
	if e, ok := n.get("env"); ok {
		b.env(e.value, at(path, "env"))
	}
}

func (b *builder) env(n *node, path string) {
	for _, e := range n.entries {
		if !envName().MatchString(e.key) {
			b.add(e.pos, at(path, label(e.key)), "", "want a name of letters, digits and _, the first no digit")
		}
		if strings.ContainsRune(e.value.text, 0) {
			b.add(e.value.pos, at(path, label(e.key)), "", "the value holds a NUL character")
		}
	}
}

// isLabel says whether s can name a step in messages.
func isLabel(s string) bool {
	return s != "" && utf8.RuneCountInString(s) <= 64 && s == strings.TrimSpace(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func (b *builder) assertion(i int, n *node) {
	path := atIndex("verify", i)
	if kind, ok := b.kind(n, path, nil); ok {
		b.r.Verify = append(b.r.Verify, Assertion{Index: i, Kind: kind.key, Options: b.options(kind, path, nil), Pos: n.pos})
	}
}

func (b *builder) options(kind entry, path string, common []string) Options {
	return Options{file: b.r.File, path: at(path, label(kind.key)), pos: kind.pos, node: kind.value, common: common}
}

// kind finds the one key of a mapping that is not a common one.
func (b *builder) kind(n *node, path string, common []string) (entry, bool) {
	if n.kind != mapping {
		b.wrongType(n, path, "a mapping with one kind", "")
		return entry{}, false
	}
	kinds := n.only(func(key string) bool { return !slices.Contains(common, key) }).entries
	switch len(kinds) {
	case 0:
		b.add(n.pos, path, "", "no kind: nothing says what to do")
		return entry{}, false
	case 1:
		return kinds[0], true
	}
	for _, e := range kinds {
		if hint := didYouMean(e.key, common); hint != "" {
			b.add(e.pos, at(path, label(e.key)), hint, "unknown key")
			return entry{}, false
		}
	}
	var names []string
	for _, e := range kinds {
		names = append(names, label(e.key))
	}
	hint := ""
	if common != nil {
		hint = optionsBelow(kinds)
	}
	b.add(kinds[1].pos, path, hint, "more than one kind: %s", strings.Join(names, ", "))
	return entry{}, false
}

// optionsBelow is the hint for what stands beside a kind: an option of it, or another
// kind. Which there are is not known here; run is what most often has no braces.
func optionsBelow(kinds []entry) string {
	example := "script: make, timeout: 5m"
	for _, e := range kinds {
		if e.key != "run" && e.value.text != "" && slices.ContainsFunc(kinds, func(k entry) bool { return k.key == "run" }) {
			example = "script: …, " + label(e.key) + ": " + label(e.value.text)
		}
	}
	return "an option stands in the braces of its kind, as in run: {" + example + "}; another kind is a step of its own"
}
