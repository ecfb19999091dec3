package refs

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/etc"
)

const (
	maxUnit    = 64 << 10 // bytes of the file of a unit: what is larger starts nothing
	maxStarted = 1 << 13  // files that units name
)

// scriptPlaces are where a machine's own scripts lie, which anything may start: rc.local,
// a rule of udev, another script.
var scriptPlaces = []string{"usr/local/bin", "usr/local/sbin"}

// visitStarted takes what units start and read when they do, as far as it may be a text: a
// script that mounts a volume by its UUID is as good as a unit that does. Whether the
// unit starts does not matter, as it does not for the units themselves. What a script
// calls is not looked for.
func (w *walker) visitStarted() error {
	units := slices.Clone(w.found)
	for _, dir := range scriptPlaces {
		names, err := etc.ReadDir(w.FS, dir, maxEntries)
		if errors.Is(err, etc.ErrTooMany) {
			w.lost = append(w.lost, Unread{File: dir, Why: err.Error()})
		} // or it is not there
		for _, name := range names {
			if err := w.visitText(path.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	asked := map[string]bool{}
	for _, unit := range units {
		if !isUnit(unit.name) || unit.info.Size() > maxUnit {
			continue
		}
		for _, name := range startedBy(etc.ReadUpTo(w.FS, unit.name, maxUnit)) {
			if asked[name] || len(asked) == maxStarted {
				continue
			}
			asked[name] = true
			if err := w.visitText(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// visitText takes a file that may be a text.
func (w *walker) visitText(name string) error {
	info, err := fs.Stat(w.FS, name)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxOther {
		return nil
	}
	return w.take(name, info, 0)
}

// isUnit says whether a file is one of systemd that may name programs: a unit, or a
// drop-in of one.
func isUnit(name string) bool {
	return strings.Contains(name, "systemd/") &&
		slices.Contains([]string{".service", ".socket", ".mount", ".swap", ".conf"}, path.Ext(name))
}

// startedBy lists the files that the text of a unit names where it says what is
// executed, arguments too (of a shell one is the script), and its files of variables.
func startedBy(text string) (names []string) {
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if !strings.HasPrefix(key, "Exec") && strings.TrimSpace(key) != "EnvironmentFile" {
			continue
		}
		for _, word := range strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" \t\"'`;&|<>(){}=", r) }) {
			word = strings.TrimLeft(word, "@-:+!")
			if strings.HasPrefix(word, "/") && !strings.ContainsAny(word, "%$*?[\\") {
				if name := strings.TrimPrefix(path.Clean(word), "/"); fs.ValidPath(name) {
					names = append(names, name)
				}
			}
		}
	}
	return names
}
