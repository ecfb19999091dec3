package step

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/recipes"
)

var packagesKind = Kind{
	Name:    "packages",
	Version: 1,
	Summary: "install, remove and update packages with the image's own package manager",
	Example: `
- packages: {install: [nginx-light, curl], remove: [nano], update: true}
- packages: [nginx-light]
`,
	New: func() Step { return new(Packages) },
}

// Packages changes packages with the package manager of the image, found by
// its os-release. It has the network unless the recipe says "network: false".
type Packages struct {
	Install []string `yaml:"install" json:"install,omitempty"`
	Remove  []string `yaml:"remove" json:"remove,omitempty"` // before installing
	Update  bool     `yaml:"update" json:"update,omitempty"` // fetch the package lists first
}

// FromList reads the short form, packages to install.
func (p *Packages) FromList(l []string) error { p.Install = l; return nil }

// Network implements [Networker]: removing alone needs none.
func (p *Packages) Network() bool { return p.Update || len(p.Install) > 0 }

// packageName is what the managers agree on, with =version, :arch and the like
// after it. It cannot start with a dash, so it is never taken for an option.
var packageName = regexp.MustCompile(`^[A-Za-z0-9@][A-Za-z0-9+._:=~^*/@-]*$`)

// Validate implements [Step].
func (p *Packages) Validate(o recipes.Options) recipes.Problems {
	var ps recipes.Problems
	if len(p.Install)+len(p.Remove) == 0 && !p.Update {
		ps = append(ps, o.Problem("", "nothing to do: want install, remove or update"))
	}
	for field, names := range map[string][]string{"install": p.Install, "remove": p.Remove} {
		for _, name := range names {
			if !packageName.MatchString(name) {
				ps = append(ps, o.Problem(field, "%q is not the name of a package", name))
			}
		}
	}
	return ps
}

// Apply implements [Step].
func (p *Packages) Apply(ctx context.Context, g Guest, _ *Source) error {
	m, err := packageManager(ctx, g)
	if err != nil {
		return err
	}
	for _, c := range m.commands(p) {
		if err := g.Run(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// manager is a package manager. A further one is a file with its manager and a
// line in managers.
type manager interface {
	// commands are what to run for what is to be done, in order.
	commands(p *Packages) []agent.Command
	// query prints the word "installed" if a package is.
	query(name string) agent.Command
}

// managers are found by ID or ID_LIKE of os-release(5).
var managers = map[string]manager{
	"debian": apt{},
	"ubuntu": apt{},
}

// Querier is a guest that can be asked.
type Querier interface {
	Exec(ctx context.Context, c agent.Command, network bool, out func([]byte)) error
	ReadFile(ctx context.Context, name string) ([]byte, error)
}

// Installed asks the image's package manager whether it has a package.
func Installed(ctx context.Context, g Querier, name string) (bool, error) {
	m, err := packageManager(ctx, g)
	if err != nil {
		return false, err
	}
	var out bytes.Buffer
	err = g.Exec(ctx, m.query(name), false, func(b []byte) { out.Write(b) })
	var exit *agent.ExitError
	if err != nil && !errors.As(err, &exit) { // it fails for a package it has never heard of
		return false, err
	}
	return strings.TrimSpace(out.String()) == "installed", nil
}

func packageManager(ctx context.Context, g interface {
	ReadFile(ctx context.Context, name string) ([]byte, error)
}) (manager, error) {
	text, err := g.ReadFile(ctx, "/etc/os-release")
	if errors.Is(err, fs.ErrNotExist) {
		text, err = g.ReadFile(ctx, "/usr/lib/os-release")
	}
	if err != nil {
		return nil, fmt.Errorf("find the package manager: %w", err)
	}
	r := etc.ParseOSRelease(string(text))
	for _, id := range append([]string{r["ID"]}, strings.Fields(r["ID_LIKE"])...) {
		if m, ok := managers[id]; ok {
			return m, nil
		}
	}
	known := slices.Sorted(maps.Keys(managers))
	return nil, fmt.Errorf("find the package manager: the image is %q, and imgmut knows those of %s", r["ID"], strings.Join(known, ", "))
}
