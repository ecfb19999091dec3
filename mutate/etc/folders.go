package etc

import (
	"io/fs"
	"path"
	"slices"
	"strings"
)

// folder is a directory of a unit: drop-ins, or links to other units.
type folder struct {
	rank int // of the directory that it is in
	name string
	made []string // the links that fstab makes, if it is no directory
}

// isFolder says whether a name is that of a directory of a unit.
func isFolder(name string) bool {
	switch path.Ext(name) {
	case ".d", ".wants", ".requires", ".upholds":
		return true
	}
	return false
}

// members lists what is in the folders of a unit with that suffix, by the names in
// them: of equal names the one that systemd takes.
func (p *unitPath) members(names []string, suffix string) ([]member, error) {
	var found []folder
	for _, name := range names {
		var ofName []folder
		for _, like := range lookAlikes(name) {
			ofName = append(ofName, p.folders[like+suffix]...)
		}
		slices.SortStableFunc(ofName, func(a, b folder) int { return a.rank - b.rank })
		found = append(found, ofName...)
	}
	found = append(found, p.folders[unitType(names[0])+suffix]...)

	var all []member
	have := map[string]bool{}
	for _, f := range found {
		list, err := p.list(f)
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			if err := p.files.spend(callSteps); err != nil { // each is sorted and looked at again, by each unit
				return nil, err
			}
			if !have[m.base] {
				have[m.base] = true
				all = append(all, m)
			}
		}
	}
	slices.SortFunc(all, func(a, b member) int { return strings.Compare(a.base, b.base) })
	return all, nil
}

// member is one file in a folder of a unit.
type member struct {
	base, file string
	isLink     bool
}

func (p *unitPath) list(f folder) ([]member, error) {
	var members []member
	for _, name := range f.made {
		members = append(members, member{base: name, isLink: true})
	}
	if f.name == "" {
		return members, nil
	}
	entries, ok := p.lists[f.name]
	if !ok {
		var err error
		if entries, err = p.files.list(f.name); err != nil {
			return nil, err
		}
		p.lists[f.name] = entries
	}
	for _, e := range entries {
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			members = append(members, member{e.Name(), f.name + "/" + e.Name(), e.Type()&fs.ModeSymlink != 0})
		}
	}
	return members, nil
}
