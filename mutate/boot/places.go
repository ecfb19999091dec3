package boot

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/etc"
)

// unmounted stands before the names of files that the booted system has nowhere.
const unmounted = "(ESP)"

// name is what the booted system calls a file of the place.
func (p Place) name(file string) string {
	if p.At == "" {
		return path.Join(unmounted, "/", file)
	}
	return path.Join(p.At, file)
}

// has says whether there is such a file, following links.
func (p Place) has(file string) bool { return etc.Exists(p.FS, inside(file)) }

// inside makes a path of a loader's one for [fs.FS].
func inside(file string) string {
	if file = strings.TrimPrefix(path.Join("/", file), "/"); file != "" {
		return file
	}
	return "."
}

// withMounts adds, as places of their own, what may be mounted in the tree of
// root already, or be a plain directory of it.
func withMounts(places []Place) []Place {
	all := slices.Clone(places)
	for _, p := range places {
		if p.At != "/" {
			continue
		}
		for _, dir := range []string{"efi", "boot/efi", "boot/firmware"} {
			fi, err := fs.Stat(p.FS, dir)
			if err != nil || !fi.IsDir() || covered(places, "/"+dir) {
				continue
			}
			if sub, err := fs.Sub(p.FS, dir); err == nil {
				all = append(all, Place{At: "/" + dir, FS: sub})
			}
		}
	}
	return all
}

// covered says whether something is mounted at a directory of root, or above it.
func covered(places []Place, dir string) bool {
	return slices.ContainsFunc(places, func(p Place) bool {
		return p.At != "" && p.At != "/" && (dir+"/" == p.At+"/" || strings.HasPrefix(dir, p.At+"/"))
	})
}

// directories are those of a place in which boot loaders keep their files.
func (c *chain) directories(p Place) []string {
	switch {
	case p.At == "":
		return []string{".", "boot"}
	case p.At == "/" && covered(c.places, "/boot"):
		return []string{"."}
	case p.At == "/":
		return []string{"boot", "."}
	}
	return []string{"."}
}

// find gives the place that has a file by the name it has in the booted system,
// and its path there.
func (c *chain) find(name string) (p Place, file string, ok bool) {
	if rest, esp := strings.CutPrefix(name, unmounted+"/"); esp {
		for _, p := range c.places {
			if p.At == "" && p.has(rest) {
				return p, inside(rest), true
			}
		}
		return p, "", false
	}
	for _, q := range c.places {
		rest, below := strings.CutPrefix(name, strings.TrimSuffix(q.At, "/")+"/")
		if q.At != "" && (below || name == q.At) && len(q.At) > len(p.At) {
			if p, file = q, inside(rest); name == q.At {
				file = "."
			}
		}
	}
	return p, file, p.At != "" && p.has(file)
}

// list gives the names in a directory of the booted system, none if it is not
// there.
func (c *chain) list(name string) []string {
	p, file, ok := c.find(name)
	if !ok {
		return nil
	}
	return c.names(p, file)
}

// names lists a directory of a place.
func (c *chain) names(p Place, dir string) []string {
	names, err := etc.ReadDir(p.FS, dir, maxEntries)
	switch {
	case errors.Is(err, etc.ErrTooMany):
		c.fail("%s has more than %d entries", p.name(dir), maxEntries)
	case err != nil && !errors.Is(err, fs.ErrNotExist) && p.has(dir):
		if fi, statErr := fs.Stat(p.FS, dir); statErr == nil && fi.IsDir() {
			c.fail("list %s: %w", p.name(dir), err)
		}
	}
	return names
}
