package etc

import (
	"io/fs"
	"path"
	"slices"
	"strings"
)

// unitPath is the directories in which systemd looks for units (systemd.unit(5),
// "Unit File Load Path"), the first before the next.
type unitPath struct {
	files   *files
	dirs    []*unitDir
	isDir   map[string]bool     // the real names of dirs, those that are missing too
	entries map[string]entry    // what lookup found
	folders map[string][]folder // by name: "x.mount.d", "x.target.wants"
	lists   map[string][]fs.DirEntry
	aliases map[string][]string // of a unit: its other names
}

// unitDir is one directory of the path: files, or what a generator makes.
type unitDir struct {
	name string
	kind map[string]fs.FileMode // of the units in it
	made *fromFstab
}

// entry is what the path knows of the name of a unit.
type entry struct {
	file  string // to be read
	alias string // or it is another name of this one
	made  *unit  // or made of fstab
}

const maxAliases = 8

// Where in unitDirs stands what generators make.
const (
	earlyRank     = 1
	generatorRank = 4
	lateRank      = 8
)

var unitDirs = []string{
	"etc/systemd/system.control", "", "etc/systemd/system", "etc/systemd/system.attached", "",
	"usr/local/lib/systemd/system", "lib/systemd/system", "usr/lib/systemd/system", "",
}

// realUnitDirs gives the directories without links; one that comes again is left out.
func realUnitDirs(f *files) ([]string, error) {
	dirs := slices.Clone(unitDirs)
	for i, dir := range dirs {
		if dir == "" {
			continue
		}
		real, err := f.follow(dir)
		if err := skipAbsent(err); err != nil {
			return nil, err
		}
		if slices.Contains(dirs[:i], real) {
			real = ""
		}
		dirs[i] = real
	}
	return dirs, nil
}

// openUnitPath opens the path with what generators make, by rank.
func openUnitPath(f *files, generated map[int]*fromFstab) (*unitPath, error) {
	p := &unitPath{
		files: f, isDir: map[string]bool{}, entries: map[string]entry{}, folders: map[string][]folder{},
		lists: map[string][]fs.DirEntry{}, aliases: map[string][]string{},
	}
	dirs, err := realUnitDirs(f)
	if err != nil {
		return nil, err
	}
	var links []string
	for rank, name := range dirs {
		d := &unitDir{name: name, kind: map[string]fs.FileMode{}}
		switch made := generated[rank]; {
		case made != nil:
			d.made = made
			for dir, names := range made.links {
				p.folders[dir] = append(p.folders[dir], folder{rank: rank, made: names})
			}
		case name != "":
			names, err := p.openDir(d, rank)
			if err != nil {
				return nil, err
			}
			links = append(links, names...)
		}
		p.dirs = append(p.dirs, d)
	}
	return p, p.findAliases(links)
}

// openDir notes what is in a directory, and gives the names of units that are links.
func (p *unitPath) openDir(d *unitDir, rank int) (links []string, err error) {
	entries, err := p.files.list(d.name)
	if err != nil {
		return nil, err
	}
	p.isDir[d.name] = true
	for _, e := range entries {
		name, kind := e.Name(), e.Type()
		switch { // a link to a directory is not looked into, and a directory is no unit
		case kind.IsDir() && isFolder(name):
			p.folders[name] = append(p.folders[name], folder{rank: rank, name: d.name + "/" + name})
		case (kind.IsRegular() || kind&fs.ModeSymlink != 0) && unitType(name) != "":
			d.kind[name] = kind
			if kind&fs.ModeSymlink != 0 {
				links = append(links, name)
			}
		}
	}
	return links, nil
}

func (p *unitPath) findAliases(links []string) error {
	slices.Sort(links)
	for _, name := range slices.Compact(links) {
		id, _, err := p.find(name)
		if err != nil {
			return err
		}
		if id != name {
			p.aliases[id] = append(p.aliases[id], name)
		}
	}
	return nil
}

// find gives the unit that a name means, and what it is made of. It is made of
// nothing if there is none.
func (p *unitPath) find(name string) (id string, e entry, err error) {
	for range maxAliases {
		if e, err = p.lookup(name); err != nil {
			return name, e, err
		}
		template, instance, isInstance := templateOf(name)
		if e == (entry{}) && isInstance {
			if e, err = p.lookup(template); err != nil {
				return name, e, err
			}
		}
		if e.alias == "" {
			return name, e, nil
		}
		name = instanceOf(e.alias, instance)
	}
	return name, entry{}, nil
}

// lookup gives what the first directory says that knows the name.
func (p *unitPath) lookup(name string) (entry, error) {
	if e, ok := p.entries[name]; ok {
		return e, nil
	}
	var found entry
	for _, d := range p.dirs {
		if d.made != nil {
			found.made = d.made.units[name]
			if d.made.masked[name] {
				found.file = "dev/null"
			}
		} else if kind, ok := d.kind[name]; ok {
			var err error
			if found, err = p.entryOf(d, name, kind); err != nil {
				return entry{}, err
			}
		}
		if found != (entry{}) {
			break
		}
	}
	p.entries[name] = found
	return found, p.files.step()
}

// entryOf says what the name is in a directory that has it. A link into one of the
// directories gives a unit another name; some may have none, and a link to the
// same name is passed over.
func (p *unitPath) entryOf(d *unitDir, name string, kind fs.FileMode) (entry, error) {
	file := d.name + "/" + name
	if kind&fs.ModeSymlink == 0 {
		return entry{file: file}, nil
	}
	target, err := p.files.resolve(d.name, p.files.readLink(file), false)
	if err := skipAbsent(err); err != nil {
		return entry{}, err
	}
	dir, base := path.Split(target)
	if !p.isDir[strings.TrimSuffix(dir, "/")] {
		return entry{file: file}, nil
	}
	if base == name || !mayAlias(name, base) {
		return entry{}, nil
	}
	return entry{alias: base}, nil
}

// mayAlias says whether a unit of that name may be another name for the second.
func mayAlias(name, of string) bool {
	kind := unitType(of)
	if kind != unitType(name) || !slices.Contains([]string{"service", "socket", "target", "device", "timer", "path"}, kind) {
		return false
	}
	_, instance, _, at := splitUnit(name)
	_, ofInstance, _, ofAt := splitUnit(of)
	return at == ofAt && (ofInstance == instance || ofInstance == "")
}
