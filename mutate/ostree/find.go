package ostree

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// How much is read: a stranger may have made it. All deployments of a volume are open at
// once, and searched for what is to be changed.
const (
	maxStateRoots  = 64
	maxDeployments = 64 // of all state roots
)

var (
	// linkPath is what ostree= names: a link of a boot version.
	linkPath = lazyregexp.New(`^/?(ostree/boot\.[01]/([^/.][^/]*)/[0-9a-f]+/[0-9]+)/?$`)
	// deploymentPath is where that link leads.
	deploymentPath = lazyregexp.New(`^(?:\.\./)*(?:ostree/)?deploy/([^/]+)/deploy/([0-9a-f]{64})\.([0-9]+)$`)
	deploymentName = lazyregexp.New(`^([0-9a-f]{64})\.([0-9]+)$`)
	commitName     = lazyregexp.New(`^[0-9a-f]{64}$`)
)

// mendDamaged is what can be done about a deployment that is not whole.
const mendDamaged = "ostree admin status, on a machine that runs it, says which deployments are whole"

// Find gives the deployments of a volume, root, in the order in which ostree has them:
// the default first, and those that no entry starts last. entries are those of the boot
// loaders, and starts is the ostree= of the one that starts by default. It is an error of
// class [fault.Image] if a deployment that an entry starts is not whole.
func Find(root fs.FS, entries []boot.Entry, starts string) ([]Deployment, error) {
	if starts == "" {
		return nil, fault.New(fault.Image, mendDamaged, "no boot loader's entry says which one starts (ostree=)")
	}
	first, err := deploymentOf(root, starts)
	if err != nil {
		return nil, err
	}
	first.Default = true
	found := []Deployment{first}
	for _, e := range entries {
		link := Starts(e.Options)
		if link == "" {
			continue
		}
		d, err := deploymentOf(root, link)
		if err != nil {
			return nil, err
		}
		n := slices.IndexFunc(found, d.same)
		if n < 0 {
			n, found = len(found), append(found, d)
		}
		if found[n].Entry == "" {
			found[n].Entry, found[n].Loader, found[n].Options = e.File, e.Loader, e.Options
		}
	}
	if len(found) > 1 { // ostree admin rollback: the first that is not the default, of the same
		n := slices.IndexFunc(found[1:], func(d Deployment) bool { return d.OS == first.OS })
		if n >= 0 {
			found[n+1].Rollback = true
		}
	}
	rest, err := unstarted(root, found)
	return append(found, rest...), err
}

// Starts is the link to the deployment that a kernel's command line names, "" if none.
func Starts(options string) (link string) {
	for _, word := range etc.KernelWords(options) {
		if value, ok := strings.CutPrefix(word, "ostree="); ok {
			link = value
		}
	}
	return link
}

func (d Deployment) same(o Deployment) bool {
	return d.OS == o.OS && d.Commit == o.Commit && d.Serial == o.Serial
}

// deploymentOf follows the link of an entry, and looks whether what it leads to is whole.
func deploymentOf(root fs.FS, link string) (d Deployment, err error) {
	refuse := func(format string, args ...any) (Deployment, error) {
		return d, fault.New(fault.Image, mendDamaged, "%s, which the boot loader starts, %s", link, fmt.Sprintf(format, args...))
	}
	m := linkPath().FindStringSubmatch(link)
	if m == nil {
		return refuse("is no link to a deployment (ostree/boot.N/OS/CHECKSUM/N)")
	}
	target, err := fs.ReadLink(root, m[1])
	if err != nil {
		return refuse("cannot be read: %v", err)
	}
	t := deploymentPath().FindStringSubmatch(target)
	switch {
	case t == nil:
		return refuse("leads to %s", target)
	case t[1] != m[2]:
		return refuse("leads to another operating system, %s", t[1])
	}
	d.OS, d.Commit = t[1], t[2]
	if d.Serial, err = strconv.Atoi(t[3]); err != nil {
		return refuse("leads to %s", target)
	}
	if why := d.damage(root); why != "" {
		return refuse("leads to /%s, which is not whole: %s", d.Dir(), why)
	}
	d.describe(root)
	return d, nil
}

// damage says what a deployment lacks, "" if it is whole. ostree makes its tree first,
// then its /etc, and the entry last.
func (d Deployment) damage(root fs.FS) string {
	object := path.Join(repository, "objects", d.Commit[:2], d.Commit[2:]+".commit")
	switch {
	case !isDir(root, d.Dir()):
		return "there is no such directory"
	case !etc.Exists(root, path.Join(d.Dir(), "usr/lib/os-release")):
		return "it has no /usr/lib/os-release"
	case !isDir(root, path.Join(d.Dir(), "etc")):
		return "it has no /etc"
	case !isDir(root, d.Var()):
		return "there is no /" + d.Var()
	case !etc.Exists(root, object):
		return "its commit is not in the repository"
	case etc.Exists(root, path.Join(repository, "state", d.Commit+".commitpartial")):
		return "its commit is only partly in the repository"
	}
	return ""
}

// isDir says whether a path is a directory, and no link to one.
func isDir(t fs.FS, name string) bool {
	fi, err := fs.Lstat(t, name)
	return err == nil && fi.IsDir()
}

// describe adds what is known of a deployment that is whole.
func (d *Deployment) describe(root fs.FS) {
	origin := parseKeys(etc.Read(root, d.Dir()+".origin"))
	d.Image, d.Refspec = origin["origin.container-image-reference"], origin["origin.refspec"]
	d.Pinned = origin["libostree-transient.pinned"] == "true"
	d.Name = etc.ParseOSRelease(etc.Read(root, path.Join(d.Dir(), "usr/lib/os-release")))["PRETTY_NAME"]
	d.Composefs = etc.Exists(root, path.Join(d.Dir(), composefsImage))
}

// unstarted are the deployments that no entry starts: what ostree was stopped in making,
// or has not removed yet.
func unstarted(root fs.FS, found []Deployment) (rest []Deployment, err error) {
	all, err := directories(root)
	for _, d := range all {
		if !slices.ContainsFunc(found, d.same) {
			d.describe(root)
			rest = append(rest, d)
		}
	}
	return rest, err
}

// Directories are those of all deployments of a volume, whether anything starts them or not.
func Directories(root fs.FS) (dirs []string, err error) {
	all, err := directories(root)
	for _, d := range all {
		dirs = append(dirs, d.Dir())
	}
	return dirs, err
}

// directories gives of each deployment what the name of its directory says.
func directories(root fs.FS) (all []Deployment, err error) {
	roots, err := etc.ReadDir(root, stateRoots, maxStateRoots)
	if err != nil {
		return nil, fault.New(fault.Image, mendDamaged, "read /%s: %w", stateRoots, err)
	}
	for _, os := range roots {
		names, err := etc.ReadDir(root, path.Join(stateRoots, os, "deploy"), 2*maxDeployments) // each has an origin
		if errors.Is(err, fs.ErrNotExist) {
			continue // a state root in which nothing was deployed yet
		}
		if err != nil {
			return nil, fault.New(fault.Image, mendDamaged, "read the deployments of %s: %w", os, err)
		}
		for _, name := range names {
			m := deploymentName().FindStringSubmatch(name)
			if m == nil || !isDir(root, path.Join(stateRoots, os, "deploy", name)) {
				continue
			}
			d := Deployment{OS: os, Commit: m[1]}
			if d.Serial, err = strconv.Atoi(m[2]); err != nil {
				continue
			}
			if all = append(all, d); len(all) > maxDeployments {
				return nil, fault.New(fault.Image, "ostree admin undeploy, on a machine that runs it, removes some",
					"it has more than %d deployments", maxDeployments)
			}
		}
	}
	return all, nil
}

// parseKeys reads a key file of GLib: the value of each key, by GROUP.KEY.
func parseKeys(text string) map[string]string {
	keys, group := map[string]string{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			group = line[1 : len(line)-1]
		default:
			if key, value, ok := strings.Cut(line, "="); ok {
				keys[group+"."+strings.TrimSpace(key)] = strings.TrimSpace(value)
			}
		}
	}
	return keys
}
