package mutate

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/step"
	"github.com/imgmut/imgmut/recipes"
)

// A step may change what the system mounts. Later steps see that, but what it and those
// before it wrote is where the old mounts led: below a new mount, or in a volume that is
// mounted no more.

// mendRemounted is what can be done about it.
const mendRemounted = "change what is mounted in a step before those that write there, or say hidden: allow on the step that changes it"

// remounted judges step i, which has changed what the system mounts: the guest still has
// what was mounted before, sealed places among it. since is when nothing of the image had
// been written yet.
func (b *build) remounted(g *guest.Guest, had, sealed []disk.Mounted, i int, since time.Time) error {
	image := b.guests.image.Load()
	places := disk.Remounted(had, image.Layout.Mounts)
	places = slices.DeleteFunc(places, func(place string) bool { // no step could write there
		return slices.ContainsFunc(sealed, func(m disk.Mounted) bool { return m.Mountpoint == place })
	})
	if len(places) == 0 {
		return nil
	}
	tree := disk.TreeAt(g.Root())
	for _, l := range b.plan.steps[:i+1] {
		for _, target := range writtenTargets(l) {
			place, in := below(target, places)
			if _, err := tree.Lstat(strings.TrimPrefix(target, "/")); in && err == nil {
				return fault.New(fault.Step, mendRemounted, "%s", elsewhere(image.Layout, target, place))
			}
		}
	}
	written, more, err := writtenBelow(tree, places, since)
	if err != nil || len(written) == 0 {
		return err
	}
	place, _ := below(written[0], places)
	what := written[0]
	if n := len(written) - 1; n > 0 {
		what += fmt.Sprintf(" and %d more", n)
	}
	if more {
		what += " at least"
	}
	return b.unseen(&b.plan.steps[i], mendRemounted, elsewhere(image.Layout, what, place))
}

// writtenTargets are the paths that a step says it writes, but one that may be hidden.
func writtenTargets(l stepLink) []string {
	t, ok := l.decoded.Value.(step.Targeter)
	if !ok || l.spec.Hidden == recipes.HiddenAllow {
		return nil
	}
	var targets []string
	for _, target := range t.Targets() {
		targets = append(targets, path.Clean(target))
	}
	slices.Sort(targets)
	return targets
}

// below finds the innermost of places that a path lies in.
func below(name string, places []string) (place string, ok bool) {
	for _, p := range places {
		if _, in := disk.Within(name, p); in && len(p) > len(place) {
			place, ok = p, true
		}
	}
	return place, ok
}

// elsewhere says why files will not be seen.
func elsewhere(l *disk.Layout, what, place string) string {
	n := slices.IndexFunc(l.Mounts, func(m disk.Mounted) bool { return m.Mountpoint == place && !m.ByHand })
	if n < 0 {
		return fmt.Sprintf("%s will not be seen: it lies in what was mounted on %s, and is no more", what, place)
	}
	m := l.Mounts[n]
	now := m.Cover
	switch {
	case now != "":
	case m.Bind != "":
		now = m.Bind
	default:
		v, _ := l.Slot(m.Slot)
		now = v.String()
	}
	return fmt.Sprintf("%s will not be seen: the step has changed what is mounted on %s, which is now %s (%s)", what, place, now, m.From)
}

// writtenBelow lists the files below some places that were written since then. more says
// that there are too many files to look at all.
func writtenBelow(tree *disk.Tree, places []string, since time.Time) (written []string, more bool, err error) {
	if slices.Contains(places, "/") {
		return []string{"/"}, true, nil
	}
	seen := map[string]bool{}
	errEnough := errors.New("enough")
	for _, place := range places {
		err := fs.WalkDir(tree, strings.TrimPrefix(place, "/"), func(name string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || err == nil && seen[name] {
				return nil
			}
			if err != nil {
				return err
			}
			if seen[name] = true; len(seen) > maxHidden {
				return errEnough
			}
			if e.IsDir() { // what is in it is told by itself
				return nil
			}
			fi, err := tree.Lstat(name)
			if err != nil {
				return err
			}
			if s, ok := fi.Sys().(*syscall.Stat_t); ok && time.Unix(s.Ctim.Unix()).After(since) {
				written = append(written, "/"+name)
			}
			return nil
		})
		if errors.Is(err, errEnough) {
			more = true
		} else if err != nil {
			return nil, false, fmt.Errorf("look at what is not mounted any more on %s: %w", place, err)
		}
	}
	slices.Sort(written)
	return written, more, nil
}
