package disk

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// diskNode is a partition by the name of its disk: of the first of its kind, which
// is the image's where there is one disk.
var (
	diskNode  = lazyregexp.New(`^(/dev/(?:[shv]d[a-z]+|xvd[a-z]+|(?:nvme\d+n\d+|mmcblk\d+)))(?:p?(\d+))$`)
	pathNode  = lazyregexp.New(`^(/dev/disk/by-(?:path|id)/.+)-part(\d+)$`)
	firstDisk = lazyregexp.New(`^/dev/(?:[shv]da|xvda|nvme0n1|mmcblk0)$`)
)

// partitionOf splits the name of a partition into that of its disk and a slot.
func partitionOf(spec string) (disk string, slot int, ok bool) {
	for n, re := range []func() *regexp.Regexp{diskNode, pathNode} {
		m := re().FindStringSubmatch(spec)
		if m == nil {
			continue
		}
		digit := strings.ContainsAny(m[1][len(m[1])-1:], "0123456789") // then there is a p in between
		if n == 0 && digit != strings.HasPrefix(spec[len(m[1]):], "p") {
			return "", 0, false
		}
		slot, err := strconv.Atoi(m[2])
		return m[1], slot, err == nil && slot > 0
	}
	return "", 0, false
}

// isOwn says whether the image's files mean its own disk by a name.
func (l *Layout) isOwn(disk string) bool {
	if l.Disk != "" {
		return disk == l.Disk
	}
	return firstDisk().MatchString(disk)
}

// Resolve finds the volume that a reference names: UUID=, LABEL=, PARTUUID=,
// PARTLABEL=, their paths below /dev/disk, or a partition of the image's own disk.
func (l *Layout) Resolve(spec string) (*Volume, bool) {
	found := l.resolve(spec)
	if len(found) == 0 {
		return nil, false
	}
	return found[0], true
}

// resolve finds all volumes that a reference names: nothing keeps two from having
// one label.
func (l *Layout) resolve(spec string) []*Volume {
	spec = strings.Trim(spec, `"`)
	if disk, slot, ok := partitionOf(spec); ok {
		return l.all(func(v *Volume) bool { return v.Slot == slot && l.isOwn(disk) })
	}
	if l.Table == Bare && l.isOwn(spec) {
		return l.all(func(*Volume) bool { return true })
	}
	if rest, ok := strings.CutPrefix(spec, "/dev/disk/by-"); ok {
		kind, value, _ := strings.Cut(rest, "/")
		spec = strings.ToUpper(kind) + "=" + value
	}
	tag, value, ok := strings.Cut(spec, "=")
	value = strings.Trim(value, `"`)
	if !ok || value == "" {
		return nil
	}
	// PARTUUID=…/PARTNROFF=n is the n-th partition after that one (the kernel's
	// early-lookup.c).
	if first, offset, ok := strings.Cut(value, "/PARTNROFF="); ok && tag == "PARTUUID" {
		n, err := strconv.Atoi(offset)
		from := l.all(func(v *Volume) bool { return strings.EqualFold(v.PartUUID, first) })
		if err != nil || len(from) == 0 {
			return nil
		}
		return l.all(func(after *Volume) bool { return after.Slot == from[0].Slot+n })
	}
	return l.all(func(v *Volume) bool {
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

func (l *Layout) all(match func(*Volume) bool) []*Volume {
	var found []*Volume
	for i := range l.Volumes {
		if match(&l.Volumes[i]) {
			found = append(found, &l.Volumes[i])
		}
	}
	return found
}
