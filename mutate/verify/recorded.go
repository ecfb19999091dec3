package verify

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/imgmut/imgmut/mutate/record"
)

// Record makes assertions ready to be kept.
func Record(assertions []Assertion) ([]record.Assertion, error) {
	var all []record.Assertion
	for _, a := range assertions {
		b, err := json.Marshal(a)
		if err != nil {
			return nil, fmt.Errorf("record %s: %w", a, err)
		}
		all = append(all, record.Assertion{Kind: kindOf(a), Options: b})
	}
	return all, nil
}

// Recall gives the assertions that were recorded.
func Recall(recorded []record.Assertion) ([]Assertion, error) {
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

func kindOf(a Assertion) string {
	for name, kind := range kinds {
		if reflect.TypeOf(kind()) == reflect.TypeOf(a) {
			return name
		}
	}
	return ""
}
