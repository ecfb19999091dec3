package step

import (
	"context"

	"github.com/imgmut/imgmut/mutate/packages"
	"github.com/imgmut/imgmut/recipes"
)

var packagesKind = recipes.Kind[Step]{
	Name:    "packages",
	Version: 2,
	Summary: "install, remove and upgrade packages with the image's own package manager",
	Example: `
- packages: {install: [nginx-light, curl], remove: [nano], update: true}
- packages: [nginx-light]
- packages: {upgrade: true}
- packages: {upgrade: [openssl, libssl3], keep-lists: true}
`,
	New: func() Step { return new(Packages) },
}

// Packages changes packages with the package manager of the image, found by
// its os-release. It has the network unless the recipe says "network: false".
//
// Nothing is asked, no service is started, and changed configuration files are
// kept. Lists of packages that the step fetches, and caches, are not left in
// the image, unless KeepLists says so; lists that the image came with stay as
// they are.
type Packages struct {
	Install   []string `yaml:"install" json:"install,omitempty"`
	Remove    []string `yaml:"remove" json:"remove,omitempty"`         // before installing
	Update    bool     `yaml:"update" json:"update,omitempty"`         // fetch lists though the image has some
	Upgrade   Upgrade  `yaml:"upgrade" json:"upgrade,omitzero"`        // after removing, before installing
	KeepLists bool     `yaml:"keep-lists" json:"keep-lists,omitempty"` // fetch lists and leave them in the image
}

// Upgrade says which installed packages become the newest that there are: true
// for all of them, or a list.
type Upgrade struct {
	All   bool     `json:"all,omitempty"`
	Names []string `json:"names,omitempty"`
}

// FromBool reads "upgrade: true".
func (u *Upgrade) FromBool(all bool) error { u.All = all; return nil }

// FromList reads "upgrade: [openssl]".
func (u *Upgrade) FromList(names []string) error { u.Names = names; return nil }

// FromList reads the short form, packages to install.
func (p *Packages) FromList(l []string) error { p.Install = l; return nil }

// Network implements [Networker]: removing alone needs none.
func (p *Packages) Network() bool {
	return p.Update || p.KeepLists || p.Upgrade.All || len(p.Upgrade.Names)+len(p.Install) > 0
}

// Validate implements [Step].
func (p *Packages) Validate(o recipes.Options) recipes.Problems {
	v := o.Validation()
	changes := len(p.Install)+len(p.Remove)+len(p.Upgrade.Names) > 0 || p.Upgrade.All || p.KeepLists
	v.Want(changes || p.Update, "", "nothing to do: want install, remove, update or upgrade")
	v.Want(changes || !p.Update, "update", "lists of packages are not left in the image unless keep-lists: true, "+
		"so fetching them alone does nothing; to bring packages up to date say upgrade: true")
	v.CheckEach("install", p.Install, packages.CheckName)
	v.CheckEach("remove", p.Remove, packages.CheckName)
	v.CheckEach("upgrade", p.Upgrade.Names, packages.CheckName)
	return v.Problems()
}

// Apply implements [Step].
func (p *Packages) Apply(ctx context.Context, g Guest, _ *Source) error {
	m, err := packages.Find(ctx, g)
	if err != nil {
		return err
	}
	for _, c := range m.Commands(packages.Change{
		Update: p.Update, KeepLists: p.KeepLists, Remove: p.Remove,
		UpgradeAll: p.Upgrade.All, Upgrade: p.Upgrade.Names, Install: p.Install,
	}) {
		if err := g.Run(ctx, c); err != nil {
			return err
		}
	}
	return nil
}
