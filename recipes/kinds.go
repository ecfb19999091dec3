package recipes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Kind is one kind of what a recipe lists, such as a kind of step.
type Kind[T Validator] struct {
	Name    string // its key in a recipe
	Version int    // raised when the same options come to mean something else
	Summary string // one line
	Example string // YAML, as it stands in the recipe's list
	New     func() T
}

// Kinds are the kinds that one list of a recipe knows, in the order of the
// documentation. The package that gives them their meaning keeps them as a
// plain slice.
type Kinds[T Validator] []Kind[T]

// Decoded is an item of a recipe's list with its options read.
type Decoded[T Validator] struct {
	Kind  Kind[T]
	Value T
}

// Recorded is a decoded item as it is written down, to be asked again when its
// recipe is gone.
type Recorded struct {
	Kind    string          `json:"kind"`
	Options json.RawMessage `json:"options"`
}

// Find gives the kind of a name.
func (ks Kinds[T]) Find(name string) (Kind[T], bool) {
	for _, k := range ks {
		if k.Name == name {
			return k, true
		}
	}
	return Kind[T]{}, false
}

// Names are the names of all kinds.
func (ks Kinds[T]) Names() []string {
	names := make([]string, len(ks))
	for i, k := range ks {
		names[i] = k.Name
	}
	return names
}

// Decode reads and validates the options of one item.
func (ks Kinds[T]) Decode(kind string, o Options) (Decoded[T], Problems) {
	k, ok := ks.Find(kind)
	if !ok {
		p := o.Problem("", "%s", ks.unknown(kind))
		p.Hint = didYouMean(kind, ks.Names())
		return Decoded[T]{}, Problems{p}
	}
	d := Decoded[T]{k, k.New()}
	return d, o.Read(d.Value)
}

func (ks Kinds[T]) unknown(kind string) string {
	return fmt.Sprintf("no such kind: %s (there are %s)", label(kind), strings.Join(ks.Names(), ", "))
}

// item is what a recipe has a list of.
type item interface {
	Step | Assertion
	declared() (kind string, o Options)
}

func (s Step) declared() (string, Options)      { return s.Kind, s.Options }
func (a Assertion) declared() (string, Options) { return a.Kind, a.Options }

// DecodeAll decodes a list of a recipe: its steps or its assertions. The error
// is [Problems], with those of all items.
func DecodeAll[T Validator, I item](kinds Kinds[T], items []I) ([]Decoded[T], error) {
	var all []Decoded[T]
	var problems Problems
	for _, i := range items {
		kind, options := i.declared()
		if kind == "" { // Parse has said that it has none
			continue
		}
		d, ps := kinds.Decode(kind, options)
		all, problems = append(all, d), append(problems, ps...)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return all, nil
}

// Record makes a decoded item ready to be written down.
func (d Decoded[T]) Record() (Recorded, error) {
	options, err := json.Marshal(d.Value)
	if err != nil {
		return Recorded{}, fmt.Errorf("record %s: %w", d.Kind.Name, err)
	}
	return Recorded{Kind: d.Kind.Name, Options: options}, nil
}

// Recall gives back what was recorded. An option that the kind does not know
// is an error: without it something else would be asked.
func (ks Kinds[T]) Recall(r Recorded) (Decoded[T], error) {
	k, ok := ks.Find(r.Kind)
	if !ok {
		return Decoded[T]{}, fmt.Errorf("recall: %s", ks.unknown(r.Kind))
	}
	d := Decoded[T]{k, k.New()}
	decoder := json.NewDecoder(bytes.NewReader(r.Options))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(d.Value); err != nil {
		return Decoded[T]{}, fmt.Errorf("recall %s: %w", r.Kind, err)
	}
	return d, nil
}
