package disk

import (
	"path"
	"slices"
	"syscall"

	"github.com/imgmut/imgmut/mutate/fault"
)

// Links may lie on the way to a place, in any of the volumes. systemd follows those of
// root when it reads fstab; on what is left it refuses to mount. The directory of a bind
// is followed when it is bound.

// sight is the files of the image as its mounts, from / on, show them, without mounting.
type sight struct {
	image *Image
	shows map[string]*shown // by place
}

// shown is what is seen at a place: a directory of a mount, or, if that is of no volume
// that can be read now, nothing.
type shown struct {
	of   *Mounted
	tree *Tree // of the mount; nil if it was not looked into yet, or cannot be
	name string
}

// inReality follows the links on the way to each place, and to what is bound. A mount on
// a link is none that the system makes. where is in which directories they are. It is an
// error of class [fault.Image] if binds multiply to more mounts than a system can have.
func (i *Image) inReality(mounts []Mounted) (real []Mounted, where []spot, err error) {
	real = slices.Clone(mounts)
	s := sight{i, map[string]*shown{}}
	for n := range real {
		m := &real[n]
		var place, bound spot
		switch {
		case m.ByHand:
		case s.real(m.Mountpoint) != m.Mountpoint:
			m.ByHand = true
		default:
			place = s.spot(m.Mountpoint)
			if m.Bind != "" {
				m.Bind = s.real(m.Bind)
				bound = s.spot(m.Bind)
			}
			s.show(m)
		}
		if len(s.shows) > maxShown {
			return nil, nil, fault.New(fault.Image, "bind fewer directories with what is mounted below them (rbind)",
				"there are more than %d mounts with that of %s (%s)", maxShown, m.Mountpoint, m.From)
		}
		where = append(where, place, bound)
	}
	return real, where, nil
}

// maxShown is how many mounts there may be, with those that binds show once more, which
// may double their number each time.
const maxShown = 1000

// show adds a mount.
func (s sight) show(m *Mounted) {
	if m.Bind == "" {
		s.shows[m.Mountpoint] = &shown{of: m, name: "."}
		return
	}
	adds := map[string]*shown{}
	if at, name := s.at(m.Bind); at != nil {
		adds[m.Mountpoint] = &shown{of: at.of, tree: at.tree, name: name}
	}
	for place, below := range s.shows {
		if rest, ok := Within(place, m.Bind); ok && rest != "." && m.Recursive {
			adds[path.Join(m.Mountpoint, rest)] = below
		}
	}
	for place, show := range adds {
		s.shows[place] = show
	}
}

// at gives what shows a path that has no links, and its name there.
func (s sight) at(name string) (*shown, string) {
	for dir := name; ; dir = path.Dir(dir) {
		if at := s.shows[dir]; at != nil {
			rest, _ := Within(name, dir)
			return at, path.Join(at.name, rest)
		}
		if dir == "/" {
			return nil, ""
		}
	}
}

// tree gives the files that a path without links is among, nil if they cannot be read,
// and its name there.
func (s sight) tree(name string) (*Tree, string) {
	at, name := s.at(name)
	if at == nil || !s.image.InSystem(*at.of) {
		return nil, ""
	}
	if at.tree == nil && s.image.reach(*at.of) {
		at.tree, _ = s.image.treeAt(*at.of) // what fails of it is told when it is mounted
	}
	return at.tree, name
}

// reach says whether the volume of a mount can be read: for a guest, whether it is one of
// its mounts.
func (i *Image) reach(m Mounted) bool {
	if i.guest == nil {
		return i.mount(m.part())[0] == nil
	}
	return i.mounted[m.part()] != nil
}

// real is a path without links. What is missing on the way stays as it is said.
func (s sight) real(name string) string {
	return followLinks(name, true, func(name string) (string, bool) {
		if s.shows[name] != nil {
			return "", false
		}
		tree, name := s.tree(name)
		if tree == nil {
			return "", false
		}
		target, err := tree.ReadLink(name)
		return target, err == nil
	})
}

// spot is a directory of a part of the image, the zero value for one that is not there
// or not known.
type spot struct {
	part
	inode uint64
}

// spot gives the directory that a path without links is.
func (s sight) spot(name string) spot {
	tree, file := s.tree(name)
	if tree == nil {
		return spot{}
	}
	fi, err := tree.Stat(file)
	if err != nil {
		return spot{}
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return spot{}
	}
	at, _ := s.at(name)
	return spot{at.of.part(), st.Ino}
}

// moved says whether a path is another directory than it was: somebody has renamed it, or
// what it lies in, and a mount went with it. What was not there has been made for a mount.
func moved(were, are []spot) bool {
	for n, was := range were {
		if n < len(are) && was != (spot{}) && was != are[n] {
			return true
		}
	}
	return false
}

// followLinks is a path without symbolic links, but for the last name unless follow says
// so. What is missing on the way stays as it is said.
func followLinks(name string, follow bool, readLink func(name string) (target string, ok bool)) string {
	done, todo, links := "/", split(name), 0
	for len(todo) > 0 {
		next := path.Join(done, todo[0])
		todo = todo[1:]
		if target, ok := readLink(next); ok && (follow || len(todo) > 0) && links < maxLinks {
			links++
			if path.IsAbs(target) {
				done = "/"
			}
			todo = append(split(target), todo...)
			continue
		}
		done = next
	}
	return done
}
