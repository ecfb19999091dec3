// Package packages speaks to the package managers of distributions.
//
// Which one an image has is told by its os-release. What is to be done
// ([Change]) becomes the commands that do it, with that manager's own words for
// three promises: nothing is ever asked, no service is started, and what was
// only needed on the way (lists of packages, downloads, caches) is not left in
// the image.
//
// A further manager is a file with its [Manager] and a line in managers.
package packages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// Change is what is to be done, in this order: lists are fetched, packages
// removed, upgraded, installed.
type Change struct {
	// Update fetches the lists of packages even if the image has some. Without
	// it they are fetched where the image has none, or to upgrade.
	Update     bool
	Remove     []string
	UpgradeAll bool
	Upgrade    []string // only these, where they are installed
	Install    []string
	// KeepLists leaves in the image the lists that were fetched.
	KeepLists bool
}

// Manager is a package manager.
type Manager struct {
	Name     string
	IDs      []string // ID or ID_LIKE of the os-release files of its distributions
	commands func(Change) []agent.Command
	query    func(name string) agent.Command // prints the word "installed" if a package is
}

var managers = []Manager{apt}

// Commands are what to run in the image to make the change, in order.
func (m Manager) Commands(c Change) []agent.Command { return m.commands(c) }

// nameForm is what the managers agree on, with =version, :arch and the like
// after it. It cannot start with a dash, so it is never taken for an option, nor
// end with one, by which apt-get would remove it.
var nameForm = lazyregexp.New(`^[A-Za-z0-9@][A-Za-z0-9+._:=~^*/@-]*$`)

// CheckName says what is wrong with the form of a package's name.
func CheckName(name string) error {
	if !nameForm().MatchString(name) || strings.HasSuffix(name, "-") {
		return fmt.Errorf("%q is not the name of a package", name)
	}
	return nil
}

// Files is an image whose files can be read.
type Files interface {
	ReadFile(ctx context.Context, name string) ([]byte, error)
}

// Guest is an image in which programs can be run as well.
type Guest interface {
	Files
	Exec(ctx context.Context, c agent.Command, network bool, out func([]byte)) error
}

// Find gives the package manager of an image.
func Find(ctx context.Context, image Files) (Manager, error) {
	text, err := image.ReadFile(ctx, "/etc/os-release")
	if errors.Is(err, fs.ErrNotExist) {
		text, err = image.ReadFile(ctx, "/usr/lib/os-release")
	}
	if err != nil {
		return Manager{}, fmt.Errorf("find the package manager: %w", err)
	}
	r := etc.ParseOSRelease(string(text))
	var known []string
	for _, id := range append([]string{r["ID"]}, strings.Fields(r["ID_LIKE"])...) {
		for _, m := range managers {
			if slices.Contains(m.IDs, id) {
				return m, nil
			}
		}
	}
	for _, m := range managers {
		known = append(known, m.IDs...)
	}
	return Manager{}, fmt.Errorf("find the package manager: the image is %q, and imgmut knows those of %s",
		r["ID"], strings.Join(known, ", "))
}

// Installed asks the image's package manager whether it has a package.
func Installed(ctx context.Context, g Guest, name string) (bool, error) {
	m, err := Find(ctx, g)
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
