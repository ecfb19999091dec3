package disk

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/gpt"
)

// generator is the program of systemd that mounts partitions by their types. A
// system without it does not.
const generator = "systemd/system-generators/systemd-gpt-auto-generator"

// fromType is where mounts by type come from.
const fromType = "the type of the partition (systemd-gpt-auto-generator)"

// byType gives what systemd mounts by the types of partitions, beside mounts: what
// is on the disk of root, is not to be left alone, and only where nothing else is
// said of the place and root has nothing in it (systemd-gpt-auto-generator(8), and
// its source for what that leaves open). /var and /var/tmp are not among them: those
// are mounted on the machine alone whose machine-id the partition is named by.
func (l *Layout) byType(tree fs.FS, mounts []Mounted, k kernelLine) []Mounted {
	if l.Table != GPT || k.noAuto || !etc.Exists(tree, "usr/lib/"+generator) && !etc.Exists(tree, "lib/"+generator) {
		return nil
	}
	var added []Mounted
	free := func(place string) bool {
		return !slices.ContainsFunc(mounts, at(place)) && !slices.ContainsFunc(added, at(place)) && emptyDir(tree, place)
	}
	add := func(v *Volume, place string) {
		added = append(added, Mounted{Mountpoint: place, Slot: v.Slot, From: fromType})
	}
	loader, esp := l.typed(gpt.TypeXBOOTLDR.String()), l.typed(gpt.TypeESP.String())
	if loader != nil || esp != nil {
		loader, esp = byFstab(tree, mounts, loader, esp)
	}
	if loader != nil && free("/boot") {
		add(loader, "/boot")
	}
	if esp != nil {
		switch byFstab := slices.IndexFunc(mounts, at("/boot")); {
		case byFstab >= 0 && mounts[byFstab].OfVolume() && mounts[byFstab].Slot == esp.Slot:
			// It has its place.
		case loader == nil && free("/boot"):
			add(esp, "/boot")
		case free("/efi"):
			add(esp, "/efi")
		}
	}
	for _, auto := range []struct{ kind, place string }{
		{gpt.TypeHome.String(), "/home"}, {gpt.TypeSrv.String(), "/srv"},
	} {
		if v := l.typed(auto.kind); v != nil && free(auto.place) {
			add(v, auto.place)
		}
	}
	return added
}

// byFstab gives what is left to the types of partitions of a volume for boot loaders and
// of an ESP. systemd 255 leaves an ESP alone that fstab has anywhere, and 256 both if
// fstab has anything below /boot or /efi (its NEWS, and pull request 28564).
func byFstab(tree fs.FS, mounts []Mounted, loader, esp *Volume) (*Volume, *Volume) {
	version := etc.SystemdVersion(tree)
	for _, m := range mounts {
		if !strings.HasPrefix(m.From, "/etc/fstab") {
			continue
		}
		_, boot := Within(m.Mountpoint, "/boot")
		_, efi := Within(m.Mountpoint, "/efi")
		if version >= 256 && (boot || efi) {
			return nil, nil
		}
		if version >= 255 && esp != nil && m.OfVolume() && m.Slot == esp.Slot {
			esp = nil
		}
	}
	return loader, esp
}

// typed gives the first partition of that type that systemd does not leave alone,
// nil if there is none.
func (l *Layout) typed(kind string) *Volume {
	for i := range l.Volumes {
		if v := &l.Volumes[i]; strings.EqualFold(v.Type, kind) && v.FS != "" && !v.NoAuto {
			return v
		}
	}
	return nil
}

// emptyDir says whether a directory is there and has nothing in it. systemd makes one
// that is missing, but what is not there hides nothing either.
func emptyDir(tree fs.FS, place string) bool {
	names, err := etc.ReadDir(tree, strings.TrimPrefix(place, "/"), 0)
	return err == nil && len(names) == 0 && !errors.Is(err, etc.ErrTooMany)
}

// isUsr says whether a partition has the type of a /usr.
func (v *Volume) isUsr() bool {
	return strings.EqualFold(v.Type, gpt.TypeUsrX86_64.String()) || strings.EqualFold(v.Type, gpt.TypeUsrARM64.String())
}

// isRoot says whether a partition has the type of a root.
func (v *Volume) isRoot() bool {
	return strings.EqualFold(v.Type, gpt.TypeRootX86_64.String()) || strings.EqualFold(v.Type, gpt.TypeRootARM64.String())
}

// isESP says whether a partition has the type of an EFI system partition.
func (v *Volume) isESP() bool {
	return strings.EqualFold(v.Type, gpt.TypeESP.String()) || v.Type == "0xef"
}
