package etc

import (
	"path"
	"slices"
	"strings"
)

// unit is what the files of a unit say of mounts.
type unit struct {
	name     string
	from     string // its file, or the line of fstab
	settings []setting
	pulled   []need // by links in its directories
}

// need is something that a unit pulls in when it starts: another unit, or
// whatever is mounted on the way to a path.
type need struct {
	unit, path string // one of them
	hard       bool   // the unit does not start without it
}

// meaning is what a key says of mounts.
type meaning int

const (
	_ meaning = iota
	word
	wantedUnits
	requiredUnits
	wantedPaths
	requiredPaths
	requiredPath
	stateDirectories // and the like: names below a directory of the system
)

// meanings are the keys that are kept of a unit file. Requisite= is not among them:
// it starts nothing. The paths of services are requirements by systemd.exec(5),
// "Implicit Dependencies".
var meanings = func() map[string]meaning {
	m := map[string]meaning{
		"Unit.Wants": wantedUnits, "Unit.Upholds": wantedUnits, "Service.Sockets": wantedUnits,
		"Unit.Requires": requiredUnits, "Unit.BindsTo": requiredUnits, "Unit.BindTo": requiredUnits,
		"Unit.WantsMountsFor": wantedPaths, "Unit.RequiresMountsFor": requiredPaths,
		"Mount.What": word, "Mount.Where": word, "Mount.Type": word, "Mount.Options": word, "Automount.Where": word,
		"Swap.What": requiredPath,
	}
	for _, key := range []string{"ListenStream", "ListenDatagram", "ListenSequentialPacket", "ListenFIFO", "ListenSpecial"} {
		m["Socket."+key] = requiredPath
	}
	for _, key := range []string{"PathExists", "PathExistsGlob", "PathChanged", "PathModified", "DirectoryNotEmpty"} {
		m["Path."+key] = requiredPath
	}
	for _, section := range []string{"Service.", "Socket.", "Mount.", "Swap."} {
		for _, key := range []string{"WorkingDirectory", "RootDirectory", "RootImage", "PrivateTmp", "DynamicUser"} {
			m[section+key] = word
		}
		for key := range directoryBases {
			m[section+key] = stateDirectories
		}
	}
	return m
}()

var directoryBases = map[string]string{
	"RuntimeDirectory": "/run", "StateDirectory": "/var/lib", "CacheDirectory": "/var/cache",
	"LogsDirectory": "/var/log", "ConfigurationDirectory": "/etc",
}

func meaningful(key string) bool {
	return meanings[key] != 0 || strings.HasPrefix(key, "Unit.Condition") || strings.HasPrefix(key, "Unit.Assert")
}

// add takes the assignments of one of the unit's files.
func (u *unit) add(settings []setting) {
	for _, s := range settings {
		u.settings = append(u.settings, setting{s.key, expand(s.value, u.name)})
	}
}

// last gives the value of a key: its last assignment, which may be empty.
func (u *unit) last(key string) string {
	for i := len(u.settings) - 1; i >= 0; i-- {
		if u.settings[i].key == key {
			return u.settings[i].value
		}
	}
	return ""
}

// needs lists what the unit pulls in.
func (u *unit) needs() []need {
	needs := slices.Clone(u.pulled)
	lists := map[string][]need{} // of the keys that an empty value resets
	for _, s := range u.settings {
		switch kind := meanings[s.key]; kind {
		case wantedUnits, requiredUnits:
			for _, name := range strings.Fields(s.value) {
				needs = append(needs, need{unit: name, hard: kind == requiredUnits})
			}
		case wantedPaths, requiredPaths:
			for _, name := range words(s.value) {
				needs = append(needs, need{path: name, hard: kind == requiredPaths})
			}
		case requiredPath, stateDirectories:
			lists[s.key] = append(lists[s.key], listed(kind, s)...)
			if s.value == "" {
				lists[s.key] = nil
			}
		}
	}
	for _, list := range lists {
		needs = append(needs, list...)
	}
	return append(needs, u.implied()...)
}

// listed gives the paths of an assignment to a list.
func listed(kind meaning, s setting) []need {
	if kind == requiredPath {
		return []need{{path: s.value, hard: true}}
	}
	var needs []need
	base := directoryBases[s.key[strings.IndexByte(s.key, '.')+1:]]
	for _, name := range words(s.value) {
		name, _, _ = strings.Cut(name, ":")
		needs = append(needs, need{path: path.Join(base, name), hard: true})
	}
	return needs
}

// implied lists the paths that a unit needs without saying so.
func (u *unit) implied() []need {
	var needs []need
	for section := range strings.SplitSeq("Service Socket Mount Swap", " ") {
		for key := range strings.SplitSeq("WorkingDirectory RootDirectory RootImage", " ") {
			dir, mayLack := strings.CutPrefix(u.last(section+"."+key), "-")
			if dir != "" {
				needs = append(needs, need{path: dir, hard: !mayLack}) // of "-/…" only since systemd 255
			}
		}
		if yes(u.last(section+".PrivateTmp")) || yes(u.last(section+".DynamicUser")) {
			needs = append(needs, need{path: "/tmp"}, need{path: "/var/tmp", hard: true})
		}
	}
	if m, ok := u.mount(); ok {
		if m.Place != "/" {
			needs = append(needs, need{path: path.Dir(m.Place), hard: true})
		}
		if path.IsAbs(m.What) && (m.bind() || m.Has("loop") || !m.network()) {
			needs = append(needs, need{path: m.What, hard: true})
		}
	}
	if place, ok := u.automount(); ok {
		needs = append(needs, need{path: path.Dir(place), hard: true})
	}
	return needs
}

// mount gives what a .mount unit mounts. It is none if systemd refuses it: the
// name has to be that of the place.
func (u *unit) mount() (Mount, bool) {
	place, ok := u.where("mount")
	m := Mount{What: u.last("Mount.What"), Place: place, FS: u.last("Mount.Type"), From: u.from}
	if options := u.last("Mount.Options"); options != "" {
		m.Options = strings.Split(options, ",")
	}
	return m, ok && m.What != ""
}

// automount gives the place of an .automount unit.
func (u *unit) automount() (string, bool) { return u.where("automount") }

func (u *unit) where(suffix string) (string, bool) {
	if !strings.HasSuffix(u.name, "."+suffix) {
		return "", false
	}
	place := u.last(strings.ToUpper(suffix[:1]) + suffix[1:] + ".Where")
	if place == "" {
		place, _ = unitPlace(u.name)
	}
	place = path.Clean(place)
	return place, path.IsAbs(place) && pathUnit(place, suffix) == u.name
}

// valid says whether systemd takes the unit.
func (u *unit) valid() bool {
	ok := true
	switch {
	case strings.HasSuffix(u.name, ".mount"):
		_, ok = u.mount()
	case strings.HasSuffix(u.name, ".automount"):
		_, ok = u.automount()
	}
	return ok
}
