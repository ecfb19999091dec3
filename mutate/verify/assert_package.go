package verify

import (
	"context"

	"github.com/imgmut/imgmut/mutate/packages"
	"github.com/imgmut/imgmut/recipes"
)

var packageKind = recipes.Kind[Claim]{
	Name:    "package",
	Version: 1,
	Summary: "a package is installed",
	Example: `
- package: nginx-light
`,
	New: func() Claim { return new(Package) },
}

// Package asserts that a package is installed.
type Package struct {
	Name string `yaml:"name" json:"name,omitempty"`
}

// FromScalar reads the short form, a name.
func (p *Package) FromScalar(s string) error { p.Name = s; return nil }

func (p *Package) String() string { return "package " + p.Name }

// Validate implements [Claim].
func (p *Package) Validate(o recipes.Options) recipes.Problems {
	v := o.Validation()
	v.Check("name", packages.CheckName(p.Name))
	return v.Problems()
}

// Check implements [Claim].
func (p *Package) Check(ctx context.Context, g Guest) error {
	installed, err := packages.Installed(ctx, g, p.Name)
	if err == nil && !installed {
		return unmetf("package %s is not installed", p.Name)
	}
	return err
}
