package verify

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"time"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/recipes"
)

// Guest is the image, running read-only.
type Guest interface {
	Exec(ctx context.Context, c agent.Command, network bool, out func([]byte)) error
	ReadFile(ctx context.Context, name string) ([]byte, error)
	Stat(ctx context.Context, name string) (*agent.Stat, error)
}

// Claim is what an assertion says must hold: the options of a kind.
type Claim interface {
	recipes.Validator
	// Check gives nil if the claim holds, an error of type unmet if it does not,
	// and any other error if that could not be found out.
	Check(ctx context.Context, g Guest) error
	// String names it in the verdict.
	String() string
}

// Assertion is one thing that a recipe says must hold.
type Assertion = recipes.Decoded[Claim]

// kinds are the kinds of assertions, in the order of the documentation. A new
// one is a file with its kind, and a line here.
var kinds = recipes.Kinds[Claim]{fileKind, absentKind, packageKind, unitKind, userKind, commandKind}

// Decode reads the assertions of a recipe and gives all their problems.
func Decode(r *recipes.Recipe) ([]Assertion, error) { return recipes.DecodeAll(kinds, r.Verify) }

// unmet is the way in which an assertion does not hold.
type unmet string

func (u unmet) Error() string { return string(u) }

func unmetf(format string, args ...any) error { return unmet(fmt.Sprintf(format, args...)) }

// assertAll checks the assertions in one guest.
func assertAll(ctx context.Context, r Request) ([]record.Check, error) {
	g, err := r.Guest(ctx)
	if err != nil {
		return nil, err
	}
	var checks []record.Check
	for _, a := range r.Assertions {
		started := time.Now()
		err := a.Value.Check(ctx, g)
		var why unmet
		var refused *agent.GuestError
		if errors.As(err, &refused) { // it cannot be looked at, so it does not hold
			why = unmet(refused.Error())
		} else if err != nil && !errors.As(err, &why) {
			return nil, fmt.Errorf("check %s: %w", a.Value, err)
		}
		c := record.Check{Name: a.Value.String(), OK: err == nil, Detail: string(why), Took: time.Since(started)}
		if m, ok := r.Image.Layout.Cover(pathOf(a.Value)); ok && !c.OK {
			c.Detail += fmt.Sprintf(": when the image starts, %s is mounted on %s (%s)", m.Cover, m.Mountpoint, m.From)
		}
		checks = append(checks, c)
	}
	return checks, nil
}

// pathOf is the path that an assertion is about, empty if it is about none.
func pathOf(c Claim) string {
	switch c := c.(type) {
	case *File:
		return path.Clean(c.Path)
	case *Absent:
		return path.Clean(c.Path)
	}
	return ""
}

// absolute says what is wrong with a path in the image.
func absolute(name string) error {
	if !path.IsAbs(name) {
		return fmt.Errorf("%q: want an absolute path in the image", name)
	}
	return nil
}

func expression(s string) error {
	_, err := regexp.Compile(s)
	return err
}
