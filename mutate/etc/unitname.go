package etc

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// unitTypes are the suffixes of unit names.
var unitTypes = []string{
	"service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope",
}

// unitType gives the suffix of a unit's name, "" for what can be none.
func unitType(name string) string {
	dot := strings.LastIndexByte(name, '.')
	if dot < 1 || len(name) > 255 || !slices.Contains(unitTypes, name[dot+1:]) {
		return ""
	}
	for _, c := range []byte(name) {
		if !plain(c) && c != '-' && c != '\\' && c != '@' {
			return ""
		}
	}
	return name[dot+1:]
}

// plain says whether a byte stands for itself in the name of a path's unit.
func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(":_.", c) >= 0
}

// splitUnit takes the name of a unit apart: prefix@instance.suffix. Of a
// template, which has an empty instance, at is true, as of an instance.
func splitUnit(name string) (prefix, instance, suffix string, at bool) {
	dot := strings.LastIndexByte(name, '.')
	prefix, instance, at = strings.Cut(name[:dot], "@")
	return prefix, instance, name[dot+1:], at
}

// templateOf gives the template that an instance is made by.
func templateOf(name string) (template, instance string, ok bool) {
	prefix, instance, suffix, _ := splitUnit(name)
	return prefix + "@." + suffix, instance, instance != ""
}

// instanceOf puts an instance into the name of a template; another name stays
// as it is.
func instanceOf(name, instance string) string {
	if prefix, old, suffix, at := splitUnit(name); at && old == "" {
		return prefix + "@" + instance + "." + suffix
	}
	return name
}

// lookAlikes lists under which names a unit has its directories, as srv-data.mount
// in srv-data.mount.d: its own, its template's, and those that end before a dash
// (srv-.mount), the closest first.
func lookAlikes(name string) []string {
	prefix, instance, suffix, at := splitUnit(name)
	var names []string
	chain := func(tail string) {
		for p := prefix; ; {
			names = append(names, p+tail)
			dash := strings.LastIndexByte(strings.TrimSuffix(p, "-"), '-')
			if dash < 1 {
				return
			}
			p = p[:dash+1]
		}
	}
	switch {
	case !at:
		chain("." + suffix)
	default:
		if instance != "" {
			names = append(names, name)
		}
		chain("@." + suffix)
		chain("@" + instance + "." + suffix)
	}
	return names
}

// pathUnit names the unit of a path, as systemd-escape(1) --path does.
func pathUnit(place, suffix string) string {
	place = strings.Trim(path.Clean("/"+place), "/")
	if place == "" {
		return "-." + suffix
	}
	var b strings.Builder
	for i, c := range []byte(place) {
		switch {
		case c == '/':
			b.WriteByte('-')
		case plain(c) && (c != '.' || i > 0):
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String() + "." + suffix
}

// unitPlace gives the path that a unit is named by.
func unitPlace(name string) (string, bool) {
	stem := strings.TrimSuffix(name, path.Ext(name))
	if stem == "-" {
		return "/", true
	}
	place := "/" + unescapeName(stem)
	return place, path.Clean(place) == place && strings.IndexByte(place, 0) < 0
}

// unescapeName gives back the path, without its first slash, or the word, of
// which a name was made.
func unescapeName(s string) string {
	return hexByte().ReplaceAllStringFunc(strings.ReplaceAll(s, "-", "/"), unhexByte)
}
