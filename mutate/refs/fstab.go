package refs

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// An fstab is read by the field, as whatever mounts by it does: a byte of it may
// be written as an octal number, and a volume's name may hold any byte.

func isFstab(name string) bool { return path.Base(name) == "fstab" }

// fstabReferences lists the volumes that an fstab names. A name that no volume
// can have is one too: it leads nowhere, and the system waits for it.
func fstabReferences(name, text string) []Reference {
	var refs []Reference
	for _, m := range etc.ParseFstab(text) {
		if spec, ok := fstabSpec(m.What); ok {
			refs = append(refs, Reference{name, spec, !m.Has("nofail") && !m.Has("noauto")})
		}
	}
	return refs
}

// fstabSpec gives the name of a volume as KEY=value; it is none if it names
// something else, as a device or a directory.
func fstabSpec(s string) (spec string, ok bool) {
	key, value, ok := strings.Cut(strings.Trim(s, `"'`), "=")
	if m := diskLink().FindStringSubmatch(s); m != nil {
		key, value, ok = strings.ToUpper(m[1]), unhex(m[2]), true
	}
	switch key {
	case "UUID", "LABEL", "PARTUUID", "PARTLABEL":
		return key + "=" + strings.Trim(value, `"'`), ok
	}
	return "", false
}

var (
	diskLink  = lazyregexp.New(`^/+dev/+disk/+by-(uuid|label|partuuid|partlabel)/+(.*)$`)
	hexEscape = lazyregexp.New(`\\x[0-9a-f]{2}`)
)

// unhex undoes \x20 and the like, by which udev writes what may not be in the
// name of a link.
func unhex(s string) string {
	return hexEscape().ReplaceAllStringFunc(s, func(e string) string {
		n, _ := strconv.ParseUint(e[len(`\x`):], 16, 8) // hexEscape is of two digits
		return string([]byte{byte(n)})
	})
}

var (
	escapedField = lazyregexp.New(`[^ \t\n]*\\[0-3][0-7]{2}[^ \t\n]*`)
	escapedByte  = lazyregexp.New(`^\\[0-3][0-7]{2}`)
	escapeField  = strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`)
)

// renameEscaped is rename for the fields of an fstab in which a byte is written
// as an octal number. Each byte keeps its form, so that the file keeps its length,
// unless the name has another.
func renameEscaped(text string, rename func(string) string) string {
	return escapedField().ReplaceAllStringFunc(text, func(field string) string {
		plain := etc.Unescape(field)
		fresh := rename(plain)
		if fresh == plain {
			return field
		}
		if len(fresh) != len(plain) {
			return escapeField.Replace(fresh)
		}
		var b strings.Builder
		for i := range len(fresh) {
			form := escapedByte().FindString(field)
			switch {
			case form == "":
				b.WriteByte(fresh[i])
				field = field[1:]
				continue
			case fresh[i] == plain[i]:
				b.WriteString(form)
			default:
				fmt.Fprintf(&b, `\%03o`, fresh[i])
			}
			field = field[len(form):]
		}
		return b.String()
	})
}
