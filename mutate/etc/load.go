package etc

import (
	"path"
	"strings"
)

const maxUnitFile = 1 << 20

// load reads a unit: its file, its drop-ins, and what its directories pull in. It is
// nil if there is none, or systemd would not take it.
func (s *system) load(name string) (*unit, error) {
	if u, ok := s.units[name]; ok || unitType(name) == "" && s.path.dirs[generatorRank].made.units[name] == nil {
		return u, s.files.step()
	}
	id, e, err := s.path.find(name)
	if err != nil {
		return nil, err
	}
	u, ok := s.units[id]
	if !ok {
		if u, err = s.read(id, e); err != nil {
			return nil, err
		}
	}
	s.units[name], s.units[id] = u, u
	return u, s.files.step()
}

func (s *system) read(id string, e entry) (*unit, error) {
	u := &unit{name: id}
	switch {
	case e.made != nil:
		u.from, u.settings = e.made.from, e.made.settings
	case e.file == "":
		return nil, nil
	default:
		text, err := s.files.read(e.file, maxUnitFile)
		if err != nil || text == "" { // an empty one, as /dev/null, is masked
			return nil, skipAbsent(err)
		}
		settings, ok := parseUnit(text)
		if !ok {
			return nil, nil
		}
		u.from = "/" + e.file
		u.add(settings)
	}
	names := append([]string{id}, s.path.aliases[id]...)
	if err := s.readDropIns(u, names); err != nil || !u.valid() {
		return nil, err
	}
	for suffix, hard := range map[string]bool{".wants": false, ".upholds": false, ".requires": true} {
		links, err := s.path.members(names, suffix)
		if err != nil {
			return nil, err
		}
		for _, m := range links {
			// Files are none, and a link to /dev/null takes away those of its name.
			if m.isLink && strings.TrimLeft(s.files.readLink(m.file), "/") != "dev/null" {
				u.pulled = append(u.pulled, need{unit: m.base, hard: hard})
			}
		}
	}
	return u, nil
}

func (s *system) readDropIns(u *unit, names []string) error {
	files, err := s.path.members(names, ".d")
	if err != nil {
		return err
	}
	for _, m := range files {
		if path.Ext(m.base) != ".conf" {
			continue
		}
		text, err := s.files.read(m.file, maxUnitFile)
		if err := skipAbsent(err); err != nil {
			return err
		}
		settings, _ := parseUnit(text)
		u.add(settings)
	}
	return nil
}
