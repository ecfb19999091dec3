// Package packages speaks to the package managers of distributions.
//
// Which one an image has is told by its os-release, and by what is there
// ([Find]). What is to be done ([Change]) becomes one command, with that
// manager's own words for three promises: nothing is ever asked, no service is
// started, and what was only needed on the way (lists of packages, downloads,
// caches) is not left in the image. What is installed is asked with one command
// as well ([List]); whether a package is among that is decided here.
//
// A further manager is a file with its [Manager] and a line in managers.
package packages

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/etc"
)

// Manager is a package manager.
type Manager struct {
	Name     string
	ids      []string // ID or ID_LIKE of the os-release files of its distributions
	programs []string // an image that has one of these has the manager
	files    string   // how its package files end
	words    string   // shell functions, of which a change is made: see common
	env      map[string]string
	covers   []agent.Cover
	database database
}

// managers are all of them. Where an image has several that fit equally well,
// the first of the list is taken.
var managers = []Manager{apt, dnf5, dnf, microdnf, zypper, pacman, apk}

// Files is an image whose files can be looked at.
type Files interface {
	ReadFile(ctx context.Context, name string) ([]byte, error)
	// Stat describes a file, without following a link.
	Stat(ctx context.Context, name string) (*agent.Stat, error)
}

// Guest is an image in which programs can be run as well.
type Guest interface {
	Files
	Exec(ctx context.Context, c agent.Command, network bool, out func([]byte)) error
}

// Find gives the package manager of an image.
func Find(ctx context.Context, image Files) (Manager, error) {
	return find(ctx, image, func(m Manager) []string { return m.programs })
}

// find gives the first manager of which the image has a program. Those that the
// image's os-release points to come first: a Debian may well have rpm.
func find(ctx context.Context, image Files, programs func(Manager) []string) (Manager, error) {
	ids, err := osIDs(ctx, image)
	if err != nil {
		return Manager{}, fmt.Errorf("find the package manager: %w", err)
	}
	rank := func(m Manager) int {
		for i, id := range ids {
			if slices.Contains(m.ids, id) {
				return i
			}
		}
		return len(ids)
	}
	ranked := slices.Clone(managers)
	slices.SortStableFunc(ranked, func(a, b Manager) int { return rank(a) - rank(b) })
	var looked []string
	for _, m := range ranked {
		for _, program := range programs(m) {
			_, err := image.Stat(ctx, program)
			if err == nil {
				return m, nil
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return Manager{}, fmt.Errorf("find the package manager: %w", err)
			}
			if !slices.Contains(looked, program) {
				looked = append(looked, program)
			}
		}
	}
	what := "has no os-release"
	if len(ids) > 0 {
		what = fmt.Sprintf("is %q", ids[0])
	}
	return Manager{}, fmt.Errorf("find the package manager: the image %s, and has none of %s",
		what, strings.Join(looked, ", "))
}

// osIDs says what the image is, and what that is like: none if nothing in it
// says so.
func osIDs(ctx context.Context, image Files) ([]string, error) {
	for _, name := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		text, err := image.ReadFile(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		r := etc.ParseOSRelease(string(text))
		return append([]string{r["ID"]}, strings.Fields(r["ID_LIKE"])...), nil
	}
	return nil, nil
}
