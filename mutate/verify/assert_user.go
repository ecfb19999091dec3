package verify

import (
	"bytes"
	"context"
	"strings"

	"github.com/imgmut/imgmut/recipes"
)

var userKind = recipes.Kind[Claim]{
	Name:    "user",
	Version: 1,
	Summary: "the image has a user",
	Example: `
- user: www-data
`,
	New: func() Claim { return new(User) },
}

// User asserts that the image has a user.
type User struct {
	Name string `yaml:"name" json:"name,omitempty"`
}

// FromScalar reads the short form, a name.
func (u *User) FromScalar(s string) error { u.Name = s; return nil }

func (u *User) String() string { return "user " + u.Name }

// Validate implements [Claim].
func (u *User) Validate(o recipes.Options) recipes.Problems {
	v := o.Validation()
	v.Want(u.Name != "" && !strings.Contains(u.Name, ":"), "name", "%q is not the name of a user", u.Name)
	return v.Problems()
}

// Check implements [Claim].
func (u *User) Check(ctx context.Context, g Guest) error {
	b, err := g.ReadFile(ctx, "/etc/passwd")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(b) {
		if name, _, _ := bytes.Cut(line, []byte(":")); string(name) == u.Name {
			return nil
		}
	}
	return unmetf("the image has no user %s", u.Name)
}
