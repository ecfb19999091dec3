package verify

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/recipes"
)

var unitKind = recipes.Kind[Claim]{
	Name:    "unit",
	Version: 1,
	Summary: "a unit is enabled, disabled, masked or static",
	Example: `
- unit: nginx.service
- unit: {name: apt-daily.timer, state: masked}
`,
	New: func() Claim { return new(Unit) },
}

// unitStates are the states that can be asserted (systemctl(1), is-enabled).
var unitStates = []string{"enabled", "disabled", "masked", "static"}

// Unit asserts whether a unit is started at boot.
type Unit struct {
	Name  string `yaml:"name" json:"name,omitempty"`
	State string `yaml:"state" json:"state,omitempty"` // enabled, disabled, masked or static; enabled if empty
}

func (u *Unit) String() string { return "unit " + u.Name }

// FromScalar reads the short form, the name of a unit that must be enabled.
func (u *Unit) FromScalar(s string) error { u.Name = s; return nil }

// Validate implements [Claim].
func (u *Unit) Validate(o recipes.Options) recipes.Problems {
	v := o.Validation()
	v.Check("name", agent.CheckUnit(u.Name))
	if u.State == "" {
		u.State = "enabled"
	}
	v.Want(slices.Contains(unitStates, u.State), "state", "%q: want one of %s", u.State, strings.Join(unitStates, ", "))
	return v.Problems()
}

// Check implements [Claim].
func (u *Unit) Check(ctx context.Context, g Guest) error {
	var out lastOutput
	err := g.Exec(ctx, agent.Systemctl("is-enabled", "--", u.Name), false, out.add)
	var exit *agent.ExitError
	if err != nil && !errors.As(err, &exit) { // its status is 1 for a disabled unit
		return err
	}
	state := strings.TrimSpace(string(out))
	switch {
	case state == u.State:
		return nil
	case strings.ContainsAny(state, " \n"): // an explanation in place of a state
		return unmetf("unit %s is not there: %s", u.Name, state)
	}
	return unmetf("unit %s is %s, not %s", u.Name, state, u.State)
}
