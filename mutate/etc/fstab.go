package etc

import (
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// Mount is something that the system mounts, or can mount, at its start.
type Mount struct {
	What    string   // as it is written, without escapes: UUID=…, /dev/…, tmpfs, server:/path
	Place   string   // where; of [Mounts] absolute, clean and without links
	FS      string   // "" or "auto" if it is left to be found out
	Options []string // as they are written, those for systemd too
	From    string   // what says so: "/etc/fstab:3", "/etc/systemd/system/srv-data.mount"
	Starts  bool     // it is mounted at the start, or as soon as somebody looks (automount)
	Needed  bool     // without it the start fails, or something of it
	// Masked says that there is none at the place, by its unit, and that no generator
	// of units can have one there either.
	Masked bool
}

// Has says whether the mount has that option.
func (m Mount) Has(option string) bool { return slices.Contains(m.Options, option) }

// ParseFstab reads an fstab: What, Place, FS and Options of each line, that of swap
// too. Lines that are not one are passed over, as mount(8) does.
func ParseFstab(text string) []Mount {
	var mounts []Mount
	for _, m := range fstabLines(text) {
		mounts = append(mounts, m)
	}
	return mounts
}

// fstabLines gives the mounts of an fstab with the numbers of their lines.
// Fields end at a space or tab alone. A line without type and options is one to
// systemd.
func fstabLines(text string) iter.Seq2[int, Mount] {
	return func(yield func(int, Mount) bool) {
		n := 0
		for line := range strings.Lines(text) {
			n++
			f := strings.FieldsFunc(strings.TrimRight(line, "\r\n"), func(r rune) bool { return r == ' ' || r == '\t' })
			if len(f) < 2 || strings.HasPrefix(f[0], "#") {
				continue
			}
			m := Mount{What: Unescape(f[0]), Place: Unescape(f[1])}
			if len(f) > 2 {
				m.FS = f[2]
			}
			if len(f) > 3 {
				m.Options = strings.Split(f[3], ",")
			}
			if !yield(n, m) {
				return
			}
		}
	}
}

// Unescape undoes \040 and the like, by which fstab writes white space, and may
// write any other byte.
func Unescape(s string) string {
	return octal().ReplaceAllStringFunc(s, func(e string) string {
		n, err := strconv.ParseUint(e[1:], 8, 8)
		if err != nil {
			return e
		}
		return string([]byte{byte(n)})
	})
}

var octal = lazyregexp.New(`\\[0-7]{3}`)
