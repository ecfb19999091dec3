package step

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
)

// A system whose /etc/machine-id is missing, or says "uninitialized", takes its next
// start for the first one. Then systemd enables every unit of which no preset says
// otherwise, and some builds of it disable what presets do not enable
// (systemd.preset(5), machine-id(5); manager_preset_all and unit_file_preset_all in
// its source). It would undo what a recipe says, so each step leaves presets that say
// the same. They are there in every image, because a later step can empty the
// machine-id.
//
// What presets cannot say: that of several instances of a template one is not
// enabled, and others, of which no step has spoken, are left as they are. Masked units
// need no rule: presets pass over them. Where a later step does by itself otherwise than a
// rule says, the verdict fails (package verify, firstboot.go).

// presetFile has the presets of all steps. Of two files the one whose name comes first
// has the word, whatever their directories: "0-" comes before all names that begin with
// two digits, as they are to.
const presetFile = "/etc/systemd/system-preset/0-imgmut.preset"

const presetHeader = "# By imgmut: a first boot leaves what its recipes have enabled and disabled (systemd.preset(5)).\n"

// preset is one rule: a unit, and of a template the instances that are enabled.
type preset struct {
	unit      string
	enable    bool
	instances []string
}

func (p preset) String() string {
	if p.enable {
		return strings.Join(append([]string{"enable", p.unit}, p.instances...), " ")
	}
	return "disable " + p.unit
}

// presets are rules, one for each unit.
type presets []preset

// readPresets reads those of earlier steps.
func readPresets(ctx context.Context, g Guest) (presets, error) {
	text, err := g.ReadFile(ctx, presetFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the presets of earlier steps: %w", err)
	}
	return parsePresets(string(text)), nil
}

// parsePresets reads what String gives, and passes over all else. Of two rules for a
// unit the first counts.
func parsePresets(text string) (all presets) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 || agent.CheckUnit(words[1]) != nil || all.has(words[1]) {
			continue
		}
		switch words[0] {
		case "enable":
			all = append(all, preset{words[1], true, words[2:]})
		case "disable":
			all = append(all, preset{unit: words[1]})
		}
	}
	return all
}

func (p presets) has(unit string) bool {
	return slices.ContainsFunc(p, func(r preset) bool { return r.unit == unit })
}

func (p presets) String() string {
	var b strings.Builder
	b.WriteString(presetHeader)
	for _, rule := range p {
		fmt.Fprintln(&b, rule)
	}
	return b.String()
}

// rule gives that of a unit, which is made if there is none.
func (p *presets) rule(unit string) *preset {
	at := slices.IndexFunc(*p, func(r preset) bool { return r.unit == unit })
	if at < 0 {
		*p = append(*p, preset{unit: unit})
		at = len(*p) - 1
	}
	return &(*p)[at]
}

func (p *presets) enable(unit string) {
	template, instance := splitInstance(unit)
	r := p.rule(template)
	r.enable = true
	if instance != "" && !slices.Contains(r.instances, instance) {
		r.instances = append(r.instances, instance)
	}
}

func (p *presets) disable(unit string) {
	template, instance := splitInstance(unit)
	r := p.rule(template)
	r.instances = slices.DeleteFunc(r.instances, func(i string) bool { return instance == "" || i == instance })
	r.enable = len(r.instances) > 0
}

// splitInstance splits getty@tty1.service, for which rules are kept with its template.
func splitInstance(unit string) (template, instance string) {
	name, rest, ok := strings.Cut(unit, "@")
	dot := strings.LastIndex(rest, ".")
	if !ok || dot < 0 {
		return unit, ""
	}
	return name + "@" + rest[dot:], rest[:dot]
}

// write puts the rules into the image.
func (p presets) write(ctx context.Context, g Guest, src *Source) error {
	text := p.String()
	h := &tar.Header{Typeflag: tar.TypeReg, Name: presetFile, Mode: 0o644, Size: int64(len(text))}
	if epoch := src.epoch(); !epoch.IsZero() {
		agent.SetTime(h, epoch)
	}
	return g.Put(ctx, func(t *tar.Writer) error {
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.WriteString(t, text)
		return err
	})
}

// unitDirectories are where units are looked for (systemd.unit(5), "Unit File Load
// Path"), but for those in /run.
var unitDirectories = []string{"/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// maxLinks is how often a name may be another name for a unit.
const maxLinks = 8

// realUnit gives the unit that a name is another name for, which is the one that
// presets have to name, and its file, "" if there is none.
func realUnit(ctx context.Context, g Guest, name string) (unit, file string, err error) {
	for range maxLinks {
		template, instance := splitInstance(name)
		st, found, err := findUnit(ctx, g, name)
		if err == nil && st == nil && instance != "" {
			st, found, err = findUnit(ctx, g, template)
		}
		if err != nil || st == nil || st.Link == os.DevNull {
			return name, "", err
		}
		dir, of := path.Split(st.Link)
		if dir == "" {
			dir = path.Dir(found)
		}
		if st.Link == "" || of == path.Base(found) || !slices.Contains(unitDirectories, path.Clean(dir)) {
			return name, found, nil
		}
		if before, suffix, ok := strings.Cut(of, "@."); ok {
			of = before + "@" + instance + "." + suffix
		}
		name = of
	}
	return name, "", nil
}

// findUnit looks for the file of a unit. It gives nil if there is none.
func findUnit(ctx context.Context, g Guest, name string) (*agent.Stat, string, error) {
	for _, dir := range unitDirectories {
		file := path.Join(dir, name)
		st, err := g.Stat(ctx, file)
		if err == nil {
			return st, file, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, "", err
		}
	}
	return nil, "", nil
}

// maxAlso is how many units are disabled with one.
const maxAlso = 64

// withAlso gives the units that systemctl disables with one: those that it names by
// Also=, and that they name.
func withAlso(ctx context.Context, g Guest, name string) ([]string, error) {
	var units []string
	for names := []string{name}; len(names) > 0 && len(units) < maxAlso; names = names[1:] {
		unit, file, err := realUnit(ctx, g, names[0])
		if err != nil {
			return nil, err
		}
		if slices.Contains(units, unit) {
			continue
		}
		units = append(units, unit)
		if file == "" {
			continue
		}
		text, err := g.ReadFile(ctx, file)
		if errors.Is(err, fs.ErrNotExist) { // a link that leads nowhere
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the unit %s: %w", unit, err)
		}
		names = append(names, also(string(text))...)
	}
	return units, nil
}

// also lists what a unit's file names by Also=, but for names that are made of the
// unit's own.
func also(text string) (units []string) {
	section := ""
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
		}
		key, value, _ := strings.Cut(line, "=")
		if section != "[Install]" || strings.TrimSpace(key) != "Also" {
			continue
		}
		for _, unit := range strings.Fields(value) {
			if agent.CheckUnit(unit) == nil {
				units = append(units, unit)
			}
		}
	}
	return units
}
