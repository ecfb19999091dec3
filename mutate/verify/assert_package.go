package verify

import (
	"context"
	"strings"

	"github.com/imgmut/imgmut/mutate/packages"
	"github.com/imgmut/imgmut/recipes"
)

var packageKind = recipes.Kind[Claim]{
	Name:    "package",
	Version: 1,
	Summary: "a package is installed, in this version and for this architecture",
	Example: `
- package: nginx-light
- package: libssl3:i386=3.0.11-1~deb12u2
`,
	New: func() Claim { return new(Package) },
}

// Package asserts that a package is installed. The name can have a version and
// an architecture, as the image's package manager takes them: libssl3:i386,
// openssl-3.0.7.x86_64.
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
	v.Want(!strings.ContainsAny(p.Name, "@/"), "name", "%q: want one package, and nothing of where it is from", p.Name)
	return v.Problems()
}

// Check implements [Claim].
func (p *Package) Check(ctx context.Context, g Guest) error {
	installed, err := packages.List(ctx, g)
	if err != nil || len(installed.Match(p.Name)) > 0 {
		return err
	}
	var others []string
	for _, other := range installed.Others(p.Name) {
		others = append(others, installed.ID(other))
	}
	if len(others) > 0 {
		return unmetf("package %s is not installed, but %s", p.Name, strings.Join(others, ", "))
	}
	return unmetf("package %s is not installed", p.Name)
}
