package verify

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"github.com/imgmut/imgmut/recipes"
)

var absentKind = recipes.Kind[Claim]{
	Name:    "absent",
	Version: 1,
	Summary: "nothing is at a path, not even a dangling link",
	Example: `
- absent: /etc/ssh/ssh_host_rsa_key
`,
	New: func() Claim { return new(Absent) },
}

// Absent asserts that nothing is at a path, not even a dangling link.
type Absent struct {
	Path string `yaml:"path" json:"path,omitempty"`
}

// FromScalar reads the short form, a path.
func (a *Absent) FromScalar(s string) error { a.Path = s; return nil }

func (a *Absent) String() string { return "absent " + a.Path }

// Validate implements [Claim].
func (a *Absent) Validate(o recipes.Options) recipes.Problems {
	v := o.Validation()
	v.Check("path", absolute(a.Path))
	return v.Problems()
}

// Check implements [Claim].
func (a *Absent) Check(ctx context.Context, g Guest) error {
	_, err := g.Stat(ctx, a.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil
	case err == nil:
		return unmetf("%s is there", a.Path)
	}
	return err
}
