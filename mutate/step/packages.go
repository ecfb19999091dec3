package step

import (
	"archive/tar"
	"context"
	"path"

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
- packages: [./agent.deb, /root/driver.deb]
`,
	New: func() Step { return new(Packages) },
}

// Packages changes packages with the package manager of the image
// ([packages.Find]). It has the network unless the recipe says "network: false".
//
// What is to be installed can be a file, which is what a name with a slash and
// the ending of a package is: /root/x.deb in the image, ./x.deb beside the recipe.
// The latter is part of the key, and only its package comes into the image.
//
// Nothing is asked, no service is started, and changed configuration files are
// kept. Lists of packages that the step fetches, and caches, are not left in
// the image, unless KeepLists says so; lists that the image came with stay as
// they are.
type Packages struct {
	Install   []string `yaml:"install" json:"install,omitempty"`       // names or files
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

// Boot implements [Booter]: a kernel may be among the packages, or come with them, and
// scripts of others make initrds anew.
func (p *Packages) Boot() bool { return true }

// Validate implements [Step].
func (p *Packages) Validate(o recipes.Options) recipes.Problems {
	v := o.Validation()
	changes := len(p.Install)+len(p.Remove)+len(p.Upgrade.Names) > 0 || p.Upgrade.All || p.KeepLists
	v.Want(changes || p.Update, "", "nothing to do: want install, remove, update or upgrade")
	v.Want(changes || !p.Update, "update", "lists of packages are not left in the image unless keep-lists: true, "+
		"so fetching them alone does nothing; to bring packages up to date say upgrade: true")
	v.CheckEach("install", p.Install, packages.CheckInstall)
	v.CheckEach("remove", p.Remove, packages.CheckName)
	v.CheckEach("upgrade", p.Upgrade.Names, packages.CheckName)
	return v.Problems()
}

// Inputs implements [Inputter].
func (p *Packages) Inputs() []From {
	var files []From
	for _, name := range p.Install {
		if local, ok := packages.Beside(name); ok {
			files = append(files, From{Path: local})
		}
	}
	return files
}

// Apply implements [Step].
func (p *Packages) Apply(ctx context.Context, g Guest, src *Source) error {
	m, err := packages.Find(ctx, g)
	if err != nil {
		return err
	}
	c := packages.Change{
		Update: p.Update, KeepLists: p.KeepLists, Remove: p.Remove,
		UpgradeAll: p.Upgrade.All, Upgrade: p.Upgrade.Names,
	}
	for _, name := range p.Install {
		if local, ok := packages.Beside(name); ok {
			name = packages.Place(local)
		}
		c.Install = append(c.Install, name)
	}
	command, err := m.Command(c)
	if err != nil {
		return err
	}
	if err := p.bring(ctx, g, src); err != nil {
		return err
	}
	return g.Run(ctx, command)
}

// bring puts the files from beside the recipe where the command looks for them.
func (p *Packages) bring(ctx context.Context, g Guest, src *Source) error {
	files := p.Inputs()
	if len(files) == 0 {
		return nil
	}
	return g.Put(ctx, func(t *tar.Writer) error {
		for _, from := range files {
			name := func(f *inputFile) string { return path.Join(packages.Place(from.Path), f.relative()) }
			readable := func(h *tar.Header) { h.Mode |= 0o444 } // also by users that managers become, such as _apt
			if err := src.send(ctx, from, t, name, readable); err != nil {
				return err
			}
		}
		return nil
	})
}
