package etc

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// fromFstab is what systemd-fstab-generator(8), or another, makes: units, and the links by
// which other units pull them in.
type fromFstab struct {
	units  map[string]*unit
	links  map[string][]string // of a directory as "local-fs.target.wants"
	masked map[string]bool     // units that are none
}

const maxFstab = 1 << 20

// generate makes the units of an image's fstab, and of what the kernel's command line has
// beside that.
func generate(f *files, k kernelLine) (*fromFstab, error) {
	made := newFromFstab()
	text := ""
	if !k.noFstab {
		var err error
		if text, err = f.read("etc/fstab", maxFstab); skipAbsent(err) != nil {
			return nil, err
		}
	}
	for n, m := range fstabLines(text) {
		m.From = fmt.Sprintf("/etc/fstab:%d", n)
		if err := made.line(f, m); err != nil {
			return nil, err
		}
	}
	for _, m := range k.mounts {
		if err := made.line(f, m); err != nil {
			return nil, err
		}
	}
	return made, nil
}

func newFromFstab() *fromFstab {
	return &fromFstab{map[string]*unit{}, map[string][]string{}, map[string]bool{}}
}

// late makes the units that count only where no other unit has their name.
func (k kernelLine) late() *fromFstab {
	made := newFromFstab()
	if k.state {
		made.add("var.mount", Mount{What: "tmpfs", Place: "/var", FS: "tmpfs", Options: []string{"mode=0755"}, From: fromKernel})
	}
	return made
}

// early makes what stands before all units of the administrator's.
func (k kernelLine) early() *fromFstab {
	made := newFromFstab()
	for _, name := range k.masked {
		made.masked[name] = true
	}
	for _, name := range k.wanted {
		made.link("default.target.wants", name)
	}
	return made
}

// line makes the unit of a line, unless it is about swap, or there is one of that place.
func (made *fromFstab) line(f *files, m Mount) error {
	if m.FS == "swap" || m.FS == "autofs" || !strings.Contains(m.Place, "/") {
		return nil
	}
	place, err := f.follow(m.Place)
	switch {
	case skipAbsent(err) != nil:
		return err
	case err != nil: // links in a circle: it stays as it is, and cannot be mounted
		place = m.Place
	}
	m.Place = path.Clean("/" + place)
	if strings.Count(m.Place, "/") > maxDepth {
		return fmt.Errorf("%s: %w", m.From, ErrTooMuch)
	}
	if name := pathUnit(m.Place, "mount"); made.units[name] == nil {
		made.add(name, m)
	}
	return nil
}

// add makes the unit of a line, and those that go with it.
func (made *fromFstab) add(name string, m Mount) {
	u := &unit{name: name, from: m.From, settings: []setting{
		{"Mount.What", m.What}, {"Mount.Where", m.Place}, {"Mount.Type", m.FS}, {"Mount.Options", strings.Join(m.Options, ",")},
	}}
	for option, key := range map[string]string{
		"x-systemd.requires": "Unit.Requires", "x-systemd.wants": "Unit.Wants",
	} {
		for _, value := range m.values(option) {
			u.settings = append(u.settings, setting{key, mangle(value, "mount")})
		}
	}
	for option, key := range map[string]string{
		"x-systemd.requires-mounts-for": "Unit.RequiresMountsFor", "x-systemd.wants-mounts-for": "Unit.WantsMountsFor",
	} {
		for _, value := range m.values(option) {
			u.settings = append(u.settings, setting{key, value})
		}
	}
	made.units[name] = u

	target, kind := "local-fs.target", ".requires"
	if m.network() {
		target = "remote-fs.target"
	}
	if m.nofail() {
		kind = ".wants"
	}
	wantedBy, requiredBy := m.values("x-systemd.wanted-by"), m.values("x-systemd.required-by")
	switch {
	case m.Place == "/": // noauto and the like say nothing of root
		made.link("local-fs.target.requires", name)
	case m.Has("x-systemd.automount") || m.Has("comment=systemd.automount"):
		auto := pathUnit(m.Place, "automount")
		made.units[auto] = &unit{name: auto, from: m.From, settings: []setting{{"Automount.Where", m.Place}}}
		made.link(target+kind, auto)
	case !m.is("noauto", "auto") && len(wantedBy)+len(requiredBy) == 0:
		made.link(target+kind, name)
	default:
		for _, by := range wantedBy {
			made.link(mangle(by, "mount")+".wants", name)
		}
		for _, by := range requiredBy {
			made.link(mangle(by, "mount")+".requires", name)
		}
	}
}

func (made *fromFstab) link(dir, name string) { made.links[dir] = append(made.links[dir], name) }

// is says which of two options has the last word, as "noauto" and "auto".
func (m Mount) is(option, opposite string) bool {
	yes, no := -1, -1
	for i, o := range m.Options {
		switch o {
		case option:
			yes = i
		case opposite:
			no = i
		}
	}
	return yes > no
}

// values lists what the options of that name are set to.
func (m Mount) values(name string) []string {
	var values []string
	for _, o := range m.Options {
		if value, ok := strings.CutPrefix(o, name+"="); ok && value != "" {
			values = append(values, value)
		}
	}
	return values
}

// network says whether the mount waits for the network.
func (m Mount) network() bool {
	return m.Has("_netdev") || slices.Contains(networkFS, strings.TrimPrefix(m.FS, "fuse."))
}

// networkFS are the filesystems that systemd takes for those of a network.
var networkFS = []string{
	"afs", "ceph", "cifs", "smb3", "smbfs", "sshfs", "ncpfs", "ncp", "nfs", "nfs4", "gfs", "gfs2", "glusterfs",
	"pvfs2", "ocfs2", "lustre", "davfs",
}

// nofail says whether the system starts without the mount. NFS that goes on trying
// in the background is so.
func (m Mount) nofail() bool {
	return m.is("nofail", "fail") || (m.FS == "nfs" || m.FS == "nfs4") && m.is("bg", "fg")
}

// bind says whether the mount shows another part of the tree.
func (m Mount) bind() bool {
	return m.Has("bind") || m.Has("rbind") || m.FS == "bind" || m.FS == "rbind"
}

// mangle makes the name of a unit from a name or path in an option. A name without a type
// is of the one that is given.
func mangle(name, kind string) string {
	switch {
	case unitType(name) != "":
		return name
	case strings.HasPrefix(name, "/dev/"):
		return pathUnit(name, "device")
	case strings.HasPrefix(name, "/"):
		return pathUnit(name, "mount")
	}
	return name + "." + kind
}
