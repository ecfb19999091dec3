package mutate

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/step"
	"github.com/imgmut/imgmut/recipes"
)

// A system may mount over directories of its root what no guest has: memory, a
// share, another disk. What a step writes below such a place is in the image, and is
// not seen when the image has started. A step that says where it writes is refused
// before anything runs; what others leave there is found when they have run.

// mendHidden is what can be done about it.
const mendHidden = "write somewhere else, have a step take the mount out of the image first, or say hidden: allow on the step"

// hiding says that a mount hides a path.
func hiding(name string, m disk.Mounted) string {
	return fmt.Sprintf("%s will not be seen: when the image starts, %s is mounted on %s (%s)", name, m.Cover, m.Mountpoint, m.From)
}

// checkTargets refuses steps that write where something is mounted over it. It is a
// problem of the recipe.
func checkTargets(l *disk.Layout, specs []recipes.Step, steps []step.Decoded) error {
	var problems recipes.Problems
	for i, d := range steps {
		for option, hidden := range hiddenTargets(l, specs[i], d) {
			p := specs[i].Options.Problem(option, "%s", hidden)
			p.Hint = mendHidden
			problems = append(problems, p)
		}
	}
	return recipes.Merge(problems)
}

// hiddenTargets are those targets of a step that will not be seen, by the option that
// says each, and why.
func hiddenTargets(l *disk.Layout, spec recipes.Step, d step.Decoded) map[string]string {
	t, ok := d.Value.(step.Targeter)
	if !ok || spec.Hidden == recipes.HiddenAllow {
		return nil
	}
	hidden := map[string]string{}
	for option, target := range t.Targets() {
		if m, ok := l.Cover(path.Clean(target)); ok {
			hidden[option] = hiding(target, m)
		}
	}
	return hidden
}

// unseen tells what a step has left where it will not be seen, or is an error if the step
// says so.
func (b *build) unseen(l *stepLink, mend, text string) error {
	if l.spec.Hidden == recipes.HiddenError {
		return fault.New(fault.Step, mend, "%s", text)
	}
	l.hidden = append(l.hidden, text)
	b.note(fmt.Sprintf("step %s: %s", l.title(), text))
	return nil
}

// maxHidden is how many files below covered places are compared.
const maxHidden = 20_000

// hiddenFiles are the files below the places of a guest that will be covered, and what
// each was.
type hiddenFiles map[string]stamp

// stamp changes when a file does.
type stamp struct {
	inode      uint64
	size       int64
	mode       uint32
	ctim, mtim int64 // nanoseconds
}

// hiddenIn looks at the files that will be covered. Most images have no such place.
func hiddenIn(g *guest.Guest, l *disk.Layout) (hiddenFiles, error) {
	covers := l.Covers()
	if len(covers) == 0 {
		return nil, nil
	}
	found, tree := hiddenFiles{}, disk.TreeAt(g.Root())
	for _, m := range covers {
		top := strings.TrimPrefix(m.Mountpoint, "/")
		err := fs.WalkDir(tree, top, func(name string, _ fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if len(found) > maxHidden {
				return fault.New(fault.Image, "", "%s has more than %d files, and all of them are hidden by %s: too many to watch",
					m.Mountpoint, maxHidden, m.Cover)
			}
			if name == top {
				return nil
			}
			fi, err := tree.Lstat(name)
			if err == nil {
				found["/"+name] = stampOf(fi)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("look at what %s will hide: %w", m.Mountpoint, err)
		}
	}
	return found, nil
}

func stampOf(fi os.FileInfo) stamp {
	s := stamp{size: fi.Size(), mode: uint32(fi.Mode()), mtim: fi.ModTime().UnixNano()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		s.inode, s.ctim = st.Ino, st.Ctim.Nano()
	}
	if fi.IsDir() {
		return stamp{inode: s.inode, mode: s.mode} // what is in it is told by itself
	}
	return s
}

// left are the files that are new, or others than before, in order.
func (h hiddenFiles) left(before hiddenFiles) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if was, ok := before[name]; !ok || was != h[name] {
			names = append(names, name)
		}
	}
	return names
}

// hiddenLeft tells, of what a step has left, in one line.
func hiddenLeft(l *disk.Layout, names []string) string {
	m, _ := l.Cover(names[0])
	what := names[0]
	if more := len(names) - 1; more > 0 {
		what = fmt.Sprintf("%s and %d more", what, more)
	}
	return hiding(what, m)
}
