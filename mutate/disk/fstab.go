package disk

import (
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/gpt"
)

var diskNode = regexp.MustCompile(`^/dev/(?:[shv]d[a-z]|xvd[a-z]|(?:nvme\d+n\d+|mmcblk\d+)p)(\d+)$`)

// Resolve finds the volume that a reference names: UUID=, LABEL=, PARTUUID=,
// PARTLABEL=, their paths below /dev/disk, or a partition of the only disk.
func (l *Layout) Resolve(spec string) (*Volume, bool) {
	spec = strings.Trim(spec, `"`)
	if rest, ok := strings.CutPrefix(spec, "/dev/disk/by-"); ok {
		kind, value, _ := strings.Cut(rest, "/")
		spec = strings.ToUpper(kind) + "=" + value
	}
	if m := diskNode.FindStringSubmatch(spec); m != nil {
		slot, _ := strconv.Atoi(m[1])
		return l.find(func(v *Volume) bool { return v.Slot == slot && slot != 0 })
	}
	tag, value, ok := strings.Cut(spec, "=")
	value = strings.Trim(value, `"`)
	if !ok || value == "" {
		return nil, false
	}
	// PARTUUID=…/PARTNROFF=n is the n-th partition after that one (the kernel's
	// early-lookup.c).
	if first, offset, ok := strings.Cut(value, "/PARTNROFF="); ok && tag == "PARTUUID" {
		n, err := strconv.Atoi(offset)
		v, ok := l.find(func(v *Volume) bool { return strings.EqualFold(v.PartUUID, first) })
		if err != nil || !ok {
			return nil, false
		}
		return l.find(func(after *Volume) bool { return after.Slot == v.Slot+n })
	}
	return l.find(func(v *Volume) bool {
		switch tag {
		case "UUID":
			return strings.EqualFold(v.UUID, value)
		case "LABEL":
			return v.Label == value
		case "PARTUUID":
			return strings.EqualFold(v.PartUUID, value)
		case "PARTLABEL":
			return v.PartLabel == value
		}
		return false
	})
}

func (l *Layout) find(match func(*Volume) bool) (*Volume, bool) {
	for i := range l.Volumes {
		if match(&l.Volumes[i]) {
			return &l.Volumes[i], true
		}
	}
	return nil, false
}

// followTypes gives roles to volumes that systemd mounts by their type where
// fstab says nothing of the place (systemd-gpt-auto-generator(8)). /var and
// /var/tmp are not among them: those are mounted on the machine alone whose
// machine-id the partition is named by.
func (l *Layout) followTypes() {
	for _, auto := range []struct {
		kind  string
		role  Role
		mount string
	}{
		{gpt.TypeHome.String(), Home, "/home"},
		{gpt.TypeSrv.String(), Srv, "/srv"},
		{gpt.TypeXBOOTLDR.String(), Boot, "/boot"},
	} {
		if _, taken := l.Find(auto.role); taken {
			continue
		}
		v, ok := l.find(func(v *Volume) bool {
			return strings.EqualFold(v.Type, auto.kind) && v.Role == "" && v.Mountpoint == "" && v.FS != "" && !v.NoAuto
		})
		if ok {
			v.Role, v.Mountpoint = auto.role, auto.mount
		}
	}
}

// followFstab gives roles by where the image mounts its own volumes, and lists
// those places.
func (l *Layout) followFstab(t *Tree) {
	for _, m := range etc.ParseFstab(etc.Read(t, "etc/fstab")) {
		place := path.Clean(m.Place)
		if !path.IsAbs(place) || place == "/" || m.FS == "swap" {
			continue
		}
		starts := !m.Has("noauto") || m.Has("x-systemd.automount")
		v, ok := l.Resolve(m.What)
		switch {
		case ok && starts:
			l.Mounts = append(l.Mounts, Mounted{place, v.Slot})
		case starts && (m.Has("bind") || m.Has("rbind")):
			l.Mounts = append(l.Mounts, Mounted{Mountpoint: place})
		}
		if !ok || v.Role != "" || !starts && !strings.HasPrefix(place, "/boot") {
			continue
		}
		v.Mountpoint = place
		switch place {
		case "/boot":
			v.Role = Boot
		case "/usr":
			v.Role = Usr
		case "/home":
			v.Role = Home
		case "/srv":
			v.Role = Srv
		case "/var":
			v.Role = Var
		case "/boot/efi", "/efi":
			v.Role = ESP
		}
	}
}
