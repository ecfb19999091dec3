package verify

import (
	"fmt"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// unmountable finds the mounts without which the start fails and that cannot be made:
// those of units, which may be any disk's unless something requires them, of a volume
// that the image does not have, and those of a filesystem of another type than they say.
// The lines of fstab that name no volume are found as text.
func unmountable(i *disk.Image) ([]finding, error) {
	said, err := i.Said()
	if err != nil {
		return nil, err
	}
	var found []finding
	for _, m := range said {
		if !m.Starts || !m.Needed || m.Has("bind") || m.Has("rbind") {
			continue
		}
		v, ok := i.Layout.Resolve(m.What)
		switch line := fstabLine().MatchString(m.From); {
		case !ok && !line && (tag().MatchString(m.What) || byLink().MatchString(m.What)):
			found = append(found, finding{
				what: fmt.Sprintf("%s names %s, which no volume of the image has, and the system needs it to start", m.From, m.What),
				mend: "let it name a volume of the image, or let the start only want it (WantedBy=)"})
		case ok && m.Place != "/" && !mountsAs(m, v.FS): // what says how root is mounted is the kernel's command line
			what := func(from string) string {
				return fmt.Sprintf("%s mounts %s on %s as %s, and that holds %s", from, v, m.Place, m.FS, v.FS)
			}
			found = append(found, finding{what: what(m.From), key: what(fileOf(m.From)), mend: "let it say auto, or " + v.FS})
		}
	}
	return found, nil
}

var fstabLine = lazyregexp.New(`^/etc/fstab:[0-9]+$`)

// fileOf is a file without the line, which another line may move.
func fileOf(from string) string {
	if fstabLine().MatchString(from) {
		return "/etc/fstab"
	}
	return from
}

// families are filesystems that one driver mounts, by the names that mounts and blkid
// have for them.
var families = [][]string{
	{"ext2", "ext3", "ext4"}, {"vfat", "msdos", "fat"}, {"iso9660", "udf"}, // a disc can be both
	{"ntfs", "ntfs3", "ntfs-3g", "lowntfs-3g"}, {"hfs", "hfsplus"},
	{"xfs"}, {"btrfs"}, {"f2fs"}, {"erofs"}, {"squashfs"}, {"exfat"}, {"jfs"}, {"reiserfs"}, {"nilfs2"}, {"bcachefs"}, {"minix"},
	{"swap"},
}

func familyOf(fs string) int {
	return slices.IndexFunc(families, func(names []string) bool { return slices.Contains(names, fs) })
}

// mountsAs says whether a filesystem is of the type that a mount says, or one of several
// (mount(8), -t). Of what is not known it may be.
func mountsAs(m etc.Mount, fs string) bool {
	if m.FS == "" || familyOf(fs) < 0 || strings.HasPrefix(m.FS, "no") {
		return true
	}
	return slices.ContainsFunc(strings.Split(m.FS, ","), func(one string) bool {
		return familyOf(one) < 0 || familyOf(one) == familyOf(fs)
	})
}
