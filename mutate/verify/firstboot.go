package verify

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/etc"
)

var firstBootCheck = judged("first boot", 1, firstBoot)

// presetFile has the presets by which a first boot leaves what steps of the kind systemd
// have enabled and disabled (package step).
const presetFile = "etc/systemd/system-preset/0-imgmut.preset"

// firstBoot finds units that the first start of the system is to enable or disable, by
// the presets that steps left, against what the image has: a later step did otherwise by
// itself, and the start would undo it. That happens only if the machine-id asks for it.
func firstBoot(_ context.Context, i *disk.Image) ([]finding, error) {
	trees, _, err := i.Trees()
	if err != nil {
		return nil, err
	}
	system := trees[0].Tree
	if id := strings.TrimSpace(etc.ReadUpTo(system, "etc/machine-id", maxID)); id != "uninitialized" && etc.Exists(system, "etc/machine-id") {
		return nil, nil
	}
	rules := etc.Read(system, presetFile)
	if rules == "" {
		return nil, nil
	}
	enabled, err := enabledUnits(system)
	if err != nil {
		return nil, err
	}
	var found []finding
	for line := range strings.Lines(rules) {
		words := strings.Fields(line)
		if len(words) < 2 || isMasked(system, words[1]) {
			continue
		}
		for _, unit := range instances(words[1], words[2:]) {
			switch is := enabled[unit]; {
			case words[0] == "enable" && !is && hasInstall(system, words[1]):
				found = append(found, undone(unit, "enable", "disable"))
			case words[0] == "disable" && is:
				found = append(found, undone(unit, "disable", "enable"))
			}
		}
	}
	return found, nil
}

// undone tells of a unit that a step left so, and another otherwise.
func undone(unit, first, then string) finding {
	return finding{
		what: fmt.Sprintf("the first start will %s %s, as a systemd step has said, and a later step %sd it by itself", first, unit, then),
		mend: fmt.Sprintf("%s it by a systemd step as well (systemd: {%s: [%s]})", then, then, unit),
	}
}

// instances are the units that a rule is about: of a template those that it names.
func instances(unit string, names []string) []string {
	before, after, ok := strings.Cut(unit, "@.")
	if !ok {
		return []string{unit}
	}
	var units []string
	for _, name := range names {
		units = append(units, before+"@"+name+"."+after)
	}
	return units
}

const systemUnits = "etc/systemd/system"

// unitDirs are where the files of units are (systemd.unit(5)).
var unitDirs = []string{systemUnits, "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}

// enabledUnits are those to which links lead by which others pull them in, or by which
// they have another name: what systemctl makes to enable one, and removes to disable it.
func enabledUnits(system fs.FS) (map[string]bool, error) {
	enabled := map[string]bool{}
	names, err := etc.ReadDir(system, systemUnits, maxUnits)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		file := path.Join(systemUnits, name)
		if slices.Contains([]string{".wants", ".requires", ".upholds"}, path.Ext(name)) {
			pulled, _ := etc.ReadDir(system, file, maxUnits) // a file pulls in nothing
			for _, unit := range pulled {
				enabled[unit] = true
			}
		} else if target, err := fs.ReadLink(system, file); err == nil && path.Base(target) != name {
			enabled[path.Base(target)] = true
		}
	}
	return enabled, nil
}

const maxUnits = 1 << 14 // in a directory

// isMasked says whether a unit is: presets pass over it.
func isMasked(system fs.FS, unit string) bool {
	target, err := fs.ReadLink(system, path.Join(systemUnits, unit))
	return err == nil && path.Clean(target) == "/dev/null"
}

// hasInstall says whether a unit can be enabled: by its file, if it has one.
func hasInstall(system fs.FS, unit string) bool {
	for _, dir := range unitDirs {
		file := path.Join(dir, unit)
		if !etc.Exists(system, file) {
			continue
		}
		section := ""
		for line := range strings.Lines(etc.Read(system, file)) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "[") {
				section = line
			}
			key, value, _ := strings.Cut(line, "=")
			links := slices.Contains([]string{"WantedBy", "RequiredBy", "UpheldBy", "Alias"}, strings.TrimSpace(key))
			if section == "[Install]" && links && strings.TrimSpace(value) != "" {
				return true
			}
		}
		return false
	}
	return false
}
