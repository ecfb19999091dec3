package packages

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
)

// Package is an installed package, as its manager writes name, architecture and
// version.
type Package struct{ Name, Arch, Version string }

// database is what knows the packages that an image has: dpkg, rpm, pacman or
// apk. Managers can share one.
type database struct {
	programs []string      // an image that has one of these can be asked
	list     agent.Command // prints all packages
	// parse gives the packages that the list names. Lines that name none are
	// passed over: warnings come the same way.
	parse func(list string) []Package
	// ids are the words by which the manager takes a package, from its name alone
	// to the one that has all there is to say.
	ids func(Package) []string
}

// Installed is all that an image has installed. A package that is not whole, or
// of which there is only the configuration left, is not.
type Installed struct {
	Packages []Package
	ids      func(Package) []string
}

// maxList is how much of a list is read, in bytes: some hundred thousand packages. The
// program that prints it is the image's own.
const maxList = 64 << 20

// List asks an image what is installed. It does so also where the image has no
// manager any more, but still the database.
func List(ctx context.Context, g Guest) (Installed, error) {
	m, err := find(ctx, g, func(m Manager) []string { return m.database.programs })
	if err != nil {
		return Installed{}, err
	}
	var out bytes.Buffer
	keep := func(b []byte) { out.Write(b[:min(len(b), maxList-out.Len())]) }
	if err := g.Exec(ctx, m.database.list, false, keep); err != nil {
		text := strings.TrimSpace(out.String())
		return Installed{}, fmt.Errorf("list installed packages: %w: %s", err, text[max(0, len(text)-500):])
	}
	return Installed{m.database.parse(out.String()), m.database.ids}, nil
}

// ID is all there is to say of a package, as its manager writes it:
// libssl3:i386=3.0.11-1, or openssl-libs-1:3.0.7-1.el9.x86_64.
func (i Installed) ID(p Package) string {
	ids := i.ids(p)
	return ids[len(ids)-1]
}

// Match gives the packages that a word stands for. The word is a name, with
// version and architecture as the manager takes them, and * for anything.
func (i Installed) Match(word string) []Package {
	var found []Package
	for _, p := range i.Packages {
		for _, id := range i.ids(p) {
			if ok, _ := path.Match(word, id); ok { // a pattern that is none matches nothing
				found = append(found, p)
				break
			}
		}
	}
	return found
}

// Others gives the packages of the name that a word begins with, whatever their
// version and architecture: what is there where Match finds nothing.
func (i Installed) Others(word string) []Package {
	var found []Package
	for _, p := range i.Packages {
		rest, ok := strings.CutPrefix(word, p.Name)
		if !ok || rest == "" || !strings.Contains(":=-.", rest[:1]) {
			continue
		}
		switch { // of openssl-libs-1.0 the name is openssl-libs, and not openssl
		case len(found) == 0 || len(found[0].Name) == len(p.Name):
			found = append(found, p)
		case len(found[0].Name) < len(p.Name):
			found = []Package{p}
		}
	}
	return found
}

// columns reads lines of name, architecture and version with tabs between them.
func columns(list string) []Package {
	var all []Package
	for line := range strings.Lines(list) {
		if f := strings.Split(strings.TrimSuffix(line, "\n"), "\t"); len(f) == 3 {
			all = append(all, Package{f[0], f[1], f[2]})
		}
	}
	return all
}
