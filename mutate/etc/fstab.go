package etc

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Mount is one line of an fstab.
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
		m := Mount{Spec: Unescape(f[0]), Mountpoint: Unescape(f[1]), FS: f[2]}
		if len(f) > 3 {
			m.Options = strings.Split(f[3], ",")
		}
		mounts = append(mounts, m)
	}
	return mounts
}

// Unescape undoes \040 and the like, by which fstab writes white space, and may
// write any other byte.
func Unescape(s string) string {
	return octal.ReplaceAllStringFunc(s, func(e string) string {
		n, err := strconv.ParseUint(e[1:], 8, 8)
		if err != nil {
			return e
		}
		return string([]byte{byte(n)})
	})
}

var octal = regexp.MustCompile(`\\[0-7]{3}`)
