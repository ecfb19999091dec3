package disk

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/imgmut/imgmut/mutate/gpt"
)

// Mount is one line of an fstab (fstab(5)).
type Mount struct {
	Spec       string // what, as "UUID=…" or "/dev/vda2"
	Mountpoint string
	FS         string
	Options    []string
}

// Has says whether the mount has that option.
func (m Mount) Has(option string) bool { return slices.Contains(m.Options, option) }

// ParseFstab reads an fstab. Lines that are not one are passed over, as
// mount(8) does.
func ParseFstab(text string) []Mount {
	var mounts []Mount
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 3 || strings.HasPrefix(f[0], "#") {
			continue
		}
		m := Mount{Spec: f[0], Mountpoint: unoctal(f[1]), FS: f[2]}
		if len(f) > 3 {
			m.Options = strings.Split(f[3], ",")
		}
		mounts = append(mounts, m)
	}
	return mounts
}

// unoctal undoes \040 and the like, by which fstab writes white space.
func unoctal(s string) string {
	return octal.ReplaceAllStringFunc(s, func(e string) string {
		n, err := strconv.ParseUint(e[1:], 8, 8)
		if err != nil {
			return e
		}
		return string([]byte{byte(n)})
	})
}

var (
	octal    = regexp.MustCompile(`\\[0-7]{3}`)
	diskNode = regexp.MustCompile(`^/dev/(?:[shv]d[a-z]|xvd[a-z]|(?:nvme\d+n\d+|mmcblk\d+)p)(\d+)$`)
)

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
	value = unoctal(strings.Trim(value, `"`))
	if !ok || value == "" {
		return nil, false
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
	}{{gpt.TypeHome.String(), Home, "/home"}, {gpt.TypeSrv.String(), Srv, "/srv"}, {gpt.TypeXBOOTLDR.String(), Boot, "/boot"}} {
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
	for _, m := range ParseFstab(readText(t, "etc/fstab")) {
		place := path.Clean(m.Mountpoint)
		if !path.IsAbs(place) || place == "/" || m.FS == "swap" {
			continue
		}
		starts := !m.Has("noauto") || m.Has("x-systemd.automount")
		v, ok := l.Resolve(m.Spec)
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
