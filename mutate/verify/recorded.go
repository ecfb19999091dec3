package verify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
)

// Recorded is an assertion as it is kept with an image, so that the image can
// be judged again when its recipe is gone.
type Recorded struct {
	Kind    string          `json:"kind"`
	Options json.RawMessage `json:"options"`
}

// Record makes assertions ready to be kept.
func Record(assertions []Assertion) ([]Recorded, error) {
	var all []Recorded
	for _, a := range assertions {
		b, err := json.Marshal(a)
		if err != nil {
			return nil, fmt.Errorf("record %s: %w", a, err)
		}
		all = append(all, Recorded{kindOf(a), b})
	}
	return all, nil
}

// Recall gives the assertions that were recorded.
func Recall(recorded []Recorded) ([]Assertion, error) {
	var all []Assertion
	for _, r := range recorded {
		kind, ok := kinds[r.Kind]
		if !ok {
			return nil, fmt.Errorf("recall assertion: no such kind: %s", r.Kind)
		}
		a := kind()
		if err := json.Unmarshal(r.Options, a); err != nil {
			return nil, fmt.Errorf("recall assertion %s: %w", r.Kind, err)
		}
		all = append(all, a)
	}
	return all, nil
}

// SameRecorded tells whether two lists ask the same questions. Records are
// indented, so white space does not count.
func SameRecorded(a, b []Recorded) bool {
	return slices.EqualFunc(a, b, func(x, y Recorded) bool {
		var p, q bytes.Buffer
		return x.Kind == y.Kind && json.Compact(&p, x.Options) == nil && json.Compact(&q, y.Options) == nil && bytes.Equal(p.Bytes(), q.Bytes())
	})
}

func kindOf(a Assertion) string {
	for name, kind := range kinds {
		if reflect.TypeOf(kind()) == reflect.TypeOf(a) {
			return name
		}
	}
	return ""
}
