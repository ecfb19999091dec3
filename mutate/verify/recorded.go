package verify

import (
	"fmt"

	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/recipes"
)

// Record makes assertions ready to be kept.
func Record(assertions []Assertion) ([]record.Assertion, error) {
	var all []record.Assertion
	for _, a := range assertions {
		r, err := a.Record()
		if err != nil {
			return nil, err
		}
		all = append(all, record.Assertion(r))
	}
	return all, nil
}

// Recall gives the assertions that were recorded.
func Recall(recorded []record.Assertion) ([]Assertion, error) {
	var all []Assertion
	for _, r := range recorded {
		a, err := kinds.Recall(recipes.Recorded(r))
		if err != nil {
			return nil, fmt.Errorf("recall assertion: %w", err)
		}
		all = append(all, a)
	}
	return all, nil
}
