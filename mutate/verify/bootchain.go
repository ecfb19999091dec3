package verify

import (
	"context"
	"strings"

	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

var bootCheck = judged("boot chain", 2, bootChain)

// bootChain judges whether what the boot loaders start is there, and is what was
// installed last.
func bootChain(_ context.Context, i *disk.Image) ([]finding, error) {
	loaders, err := i.Loaders()
	if err != nil {
		return nil, err
	}
	var found []finding
	for _, f := range loaders.Judge(isRoot(i.Layout)) {
		found = append(found, finding{what: f.What, key: f.Key(), mend: f.Mend, note: f.Note})
	}
	return found, nil
}

// Entries are the ways to start the image that its boot loaders have, the default
// first. Of an image that imgmut cannot use they are those that each volume tells of by
// itself.
func Entries(i *disk.Image) ([]boot.Entry, error) {
	if loaders, err := i.Loaders(); err == nil {
		return loaders.Entries()
	}
	var all []boot.Place
	for _, t := range i.EachVolume() {
		all = append(all, boot.Place{At: likelyPlace(t), UUID: t.Volume.UUID, FS: t.Tree})
	}
	return boot.Entries(all)
}

// likelyPlace is where the system may have a volume of which it is not known.
func likelyPlace(t disk.Placed) string {
	switch {
	case t.Volume.FS == "vfat":
		return ""
	case etc.Exists(t, "etc"), etc.Exists(t, "ostree/deploy"):
		return "/"
	}
	return "/boot"
}

// isRoot tells what root= may name.
func isRoot(l *disk.Layout) func(spec string) (is, known bool) {
	return func(spec string) (is, known bool) {
		if strings.HasPrefix(spec, "/dev/") && !byLink().MatchString(spec) && !firstDisk().MatchString(spec) {
			return false, false // of a volume group, or of a disk that may be another
		}
		if v, ok := l.Resolve(spec); ok {
			return v.Role == disk.Root, true
		}
		return false, tag().MatchString(spec) || byLink().MatchString(spec)
	}
}

var (
	tag       = lazyregexp.New(`^(PART)?(UUID|LABEL)=`)
	byLink    = lazyregexp.New(`^/dev/disk/by-(part)?(uuid|label)/`)
	firstDisk = lazyregexp.New(`^/dev/([shv]da|xvda|nvme0n1p|mmcblk0p)[0-9]+$`)
)
