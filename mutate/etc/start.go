package etc

import (
	"iter"
	"maps"
	"path"
	"slices"
	"strings"
)

// system is the units of a tree, and which of them start.
type system struct {
	files   *files
	path    *unitPath
	units   map[string]*unit  // by each name that was asked for; nil if there is none
	mounts  map[string]string // the names of the mount units, by place
	deepest int               // of their places
	jobs    map[*unit]*job
}

// job is what becomes of a unit.
type job struct {
	unit     *unit
	edges    []edge
	askedBy  []*job // that cannot start without it
	isBroken bool   // it cannot start: something that it requires is not there
	starts   bool
	needed   bool // by something that is no mount, or by a mount that is needed
}

// edge is something that starts with a unit.
type edge struct {
	to   *job
	hard bool
}

const maxDepth = 255 // directories on the way to a place

// newSystem notes which mount units there are.
func newSystem(f *files, p *unitPath) *system {
	s := &system{files: f, path: p, units: map[string]*unit{}, mounts: map[string]string{}, jobs: map[*unit]*job{}}
	for _, d := range p.dirs {
		all := []iter.Seq[string]{maps.Keys(d.kind)}
		if d.made != nil {
			all = []iter.Seq[string]{maps.Keys(d.made.units), maps.Keys(d.made.masked)}
		}
		for _, names := range all {
			for name := range names {
				s.addMount(name)
			}
		}
	}
	return s
}

// addMount notes the name of a unit, if it is one of a mount.
func (s *system) addMount(name string) {
	if place, ok := unitPlace(name); ok && pathUnit(place, "mount") == name {
		s.mounts[place] = name
		s.deepest = max(s.deepest, strings.Count(place, "/"))
	}
}

// boot starts what a start of the system starts: default.target, or rescue.target if
// that cannot start, and what is certain to be reached with it.
func (s *system) boot() error {
	first := map[string]*job{}
	for _, name := range []string{
		"default.target", "rescue.target", "sysinit.target", "basic.target", "local-fs.target", "remote-fs.target",
	} {
		u, err := s.load(name)
		if err != nil {
			return err
		}
		if u != nil {
			first[name] = s.job(u)
		}
	}
	if err := s.connect(slices.Collect(maps.Values(first))); err != nil {
		return err
	}
	s.breakJobs()
	if j := first["default.target"]; j != nil && !j.isBroken {
		delete(first, "rescue.target")
	}
	return s.start(slices.Collect(maps.Values(first)))
}

func (s *system) job(u *unit) *job {
	j, ok := s.jobs[u]
	if !ok {
		j = &job{unit: u}
		s.jobs[u] = j
	}
	return j
}

// connect finds what those units pull in, and so on.
func (s *system) connect(queue []*job) error {
	for len(queue) > 0 {
		j := queue[0]
		queue = queue[1:]
		if j.edges != nil {
			continue
		}
		j.edges = []edge{}
		for _, n := range j.unit.needs() {
			if err := s.connectNeed(j, n); err != nil {
				return err
			}
		}
		if place, ok := j.unit.automount(); ok && s.conditionsHold(j.unit) {
			if err := s.connectNeed(j, need{unit: pathUnit(place, "mount")}); err != nil {
				return err
			}
		}
		for _, e := range j.edges {
			if e.to.edges == nil {
				queue = append(queue, e.to)
			}
		}
	}
	return nil
}

func (s *system) connectNeed(j *job, n need) error {
	if n.unit == "" {
		return s.connectPath(j, n.path, n.hard)
	}
	u, err := s.load(n.unit)
	if err == nil && u != nil {
		j.add(s.job(u), n.hard)
	}
	if err == nil && u == nil && n.hard && !j.isBroken {
		j.isBroken, err = s.isMissing(n.unit)
	}
	return err
}

// isMissing says whether there is certainly no unit of a name that has none by its
// files: systemd has some without a file, and generators make others.
func (s *system) isMissing(name string) (bool, error) {
	kind := unitType(name)
	if slices.Contains([]string{"device", "slice", "scope", ""}, kind) { // the last: systemd passes over what can be no name
		return false, nil
	}
	_, e, err := s.path.find(name)
	if err != nil || e != (entry{}) { // it is masked, or has a fault
		return true, err
	}
	switch {
	case kind == "mount" || kind == "swap":
		return false, nil
	case strings.HasPrefix(name, "systemd-") && strings.Contains(name, "setup@"): // by crypttab and the like
		return false, nil
	case kind == "service":
		_, err := s.files.stat("etc/init.d/" + strings.TrimSuffix(name, ".service"))
		return err != nil, nil
	}
	return true, nil
}

func (j *job) add(to *job, hard bool) {
	j.edges = append(j.edges, edge{to, hard})
	if hard {
		to.askedBy = append(to.askedBy, j)
	}
}

// connectPath connects a unit with whatever is mounted on the way to a path.
func (s *system) connectPath(j *job, place string, hard bool) error {
	if !path.IsAbs(place) {
		return nil
	}
	place = path.Clean(place)
	for end, depth := 1, 0; depth <= s.deepest; depth++ {
		if name, ok := s.mounts[place[:end]]; ok && name != j.unit.name {
			u, err := s.load(name)
			if err != nil {
				return err
			}
			if u != nil {
				j.add(s.job(u), hard)
			}
		}
		if end == len(place) {
			break
		}
		if end > 1 {
			end++ // the slash
		}
		if slash := strings.IndexByte(place[end:], '/'); slash >= 0 {
			end += slash
		} else {
			end = len(place)
		}
	}
	return s.files.step()
}

// breakJobs hands on that a unit cannot start to those that require it: a mount
// that is masked keeps local-fs.target, and with it the other mounts, from starting.
func (s *system) breakJobs() {
	var queue []*job
	for _, j := range s.jobs {
		if j.isBroken {
			queue = append(queue, j)
		}
	}
	for len(queue) > 0 {
		for _, by := range queue[0].askedBy {
			if !by.isBroken {
				by.isBroken = true
				queue = append(queue, by)
			}
		}
		queue = queue[1:]
	}
}

// start starts those units and what they pull in. Each is followed when it starts,
// and once more if it turns out to be needed: what a mount requires is no more
// needed than the mount itself.
func (s *system) start(queue []*job) error {
	for _, j := range queue {
		j.starts = !j.isBroken
	}
	for len(queue) > 0 {
		j := queue[0]
		queue = queue[1:]
		if !j.starts {
			continue
		}
		isMount := strings.HasSuffix(j.unit.name, ".mount")
		for _, e := range j.edges {
			if err := s.files.step(); err != nil {
				return err
			}
			hard := e.hard && (!isMount || j.needed)
			if e.to.isBroken || e.to.starts && (e.to.needed || !hard) {
				continue
			}
			e.to.starts, e.to.needed = true, e.to.needed || hard
			queue = append(queue, e.to)
		}
	}
	return nil
}
