package boot

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// grubOptions gives the options of the kernel that GRUB starts by default.
func grubOptions(tree fs.FS, dir string) string {
	environment := grubEnvironment(tree, dir)
	for _, name := range []string{"grub/grub.cfg", "grub2/grub.cfg"} {
		entries, wanted := parseGrub(read(tree, path.Join(dir, name)))
		if saved := environment["saved_entry"]; saved != "" && wanted == "" {
			wanted = saved
		}
		if e := choose(entries, wanted); e != nil && e.options != "" {
			return expand(e.options, environment)
		}
	}
	return ""
}

// grubEntry is an entry of GRUB's first menu. A submenu has the options of the
// first kernel in it.
type grubEntry struct{ title, id, options string }

// parseGrub reads what grub-mkconfig(8) writes, and what people write like it:
// entries, and the default if it is fixed. It does not evaluate conditions.
func parseGrub(text string) (entries []grubEntry, wanted string) {
	depth := 0
	for line := range strings.Lines(text) {
		f := words(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		switch f[0] {
		case "menuentry", "submenu":
			if depth == 0 && len(f) > 1 {
				entries = append(entries, grubEntry{title: f[1], id: idOf(f)})
			}
		case "linux", "linux16", "linuxefi":
			if len(entries) > 0 && depth > 0 && entries[len(entries)-1].options == "" && len(f) > 2 {
				entries[len(entries)-1].options = strings.Join(f[2:], " ")
			}
		case "set":
			if value, ok := strings.CutPrefix(strings.Join(f[1:], " "), "default="); ok && !strings.Contains(value, "$") {
				wanted = value
			}
		}
		if f[len(f)-1] == "{" {
			depth++
		} else if f[0] == "}" && depth > 0 {
			depth--
		}
	}
	return entries, wanted
}

// choose finds an entry by its number, id or title; the first if there is none.
func choose(entries []grubEntry, wanted string) *grubEntry {
	if len(entries) == 0 {
		return nil
	}
	wanted, _, _ = strings.Cut(wanted, ">") // what follows is in a submenu
	if n, err := strconv.Atoi(wanted); err == nil && n >= 0 && n < len(entries) {
		return &entries[n]
	}
	for i, e := range entries {
		if wanted != "" && (e.id == wanted || e.title == wanted) {
			return &entries[i]
		}
	}
	return &entries[0]
}

func idOf(f []string) string {
	for i, w := range f[:len(f)-1] {
		if w == "--id" || w == "$menuentry_id_option" {
			return f[i+1]
		}
	}
	return ""
}

// words splits a line as GRUB's shell does, and takes quotes away.
func words(line string) (all []string) {
	var word strings.Builder
	quote, started := rune(0), false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, started = r, true
		case r == ' ' || r == '\t' || r == '\n' || r == '\r':
			if started {
				all = append(all, word.String())
			}
			word.Reset()
			started = false
		default:
			word.WriteRune(r)
			started = true
		}
	}
	if started {
		all = append(all, word.String())
	}
	return all
}
