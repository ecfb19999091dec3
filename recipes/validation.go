package recipes

import "fmt"

// Validator is a target of [Options.Read]: it judges what was decoded.
type Validator interface {
	Validate(o Options) Problems
}

// Validation checks decoded options, one line a field:
//
//	func (w *Write) Validate(o recipes.Options) recipes.Problems {
//		v := o.Validation()
//		v.Check("path", target(w.Path))
//		v.Want(w.Content != "", "content", "want at least a line")
//		return v.Problems()
//	}
type Validation struct {
	options  Options
	problems Problems
}

// Validation begins a validation in which nothing is wrong yet.
func (o Options) Validation() *Validation { return &Validation{options: o} }

// Check takes what is wrong with a field; nil if nothing is. The field is named
// as for [Options.Problem].
func (v *Validation) Check(field string, wrong error) {
	if wrong != nil {
		v.problems = append(v.problems, v.options.Problem(field, "%v", wrong))
	}
}

// CheckEach checks the items of a field that is a list, each at its own place.
func (v *Validation) CheckEach(field string, items []string, check func(item string) error) {
	for i, item := range items {
		v.Check(atIndex(field, i), check(item))
	}
}

// Want is Check for what needs no function of its own: a condition that must
// hold, and what is wrong if it does not.
func (v *Validation) Want(holds bool, field, format string, args ...any) {
	if !holds {
		v.Check(field, fmt.Errorf(format, args...))
	}
}

// Problems are all that was found.
func (v *Validation) Problems() Problems { return v.problems }
