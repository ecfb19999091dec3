package disk

import (
	"reflect"
	"slices"
)

// Remounted gives the places at which the system sees other files by the second list of
// mounts than by the first: something is mounted there now, or something else, or
// nothing any more. What is mounted by hand alone, and what is empty at each start of any
// system, is nobody's loss.
func Remounted(had, now []Mounted) []string {
	var places []string
	for _, pair := range [][2][]Mounted{{had, now}, {now, had}} {
		for _, m := range pair[0] {
			same := slices.ContainsFunc(pair[1], func(o Mounted) bool { return sameMount(m, o) })
			if !same && !m.ByHand && !isFresh(m.Mountpoint) && !slices.Contains(places, m.Mountpoint) {
				places = append(places, m.Mountpoint)
			}
		}
	}
	slices.Sort(places)
	return places
}

// sameMount says whether two mounts are the same. A line of fstab may have moved.
func sameMount(a, b Mounted) bool {
	a.From, b.From = "", ""
	return reflect.DeepEqual(a, b)
}

// isFresh says whether a place lies in one that is empty at each start.
func isFresh(place string) bool {
	return slices.ContainsFunc(fresh, func(dir string) bool {
		_, in := Within(place, dir)
		return in
	})
}

// With is the layout of an image that has the same volumes, and mounts these.
func (l *Layout) With(mounts []Mounted) *Layout {
	other := *l
	other.Mounts, other.Volumes = slices.Clone(mounts), slices.Clone(l.Volumes)
	other.giveRoles()
	return &other
}
