package boot

import (
	"path"
	"strings"

	"github.com/imgmut/imgmut/mutate/etc"
)

// GRUB names a file by the volume it is on, "(hd0,gpt2)/vmlinuz" or by $root,
// and its path from the root of that filesystem. Which of the booted system's
// that is shows by the UUID it was searched by, or else by where such a file is.

// searched gives the variable that a search command sets, and the volume.
func searched(words []string) (variable, volume string) {
	variable = "root"
	byUUID := words[0] == "search.fs_uuid"
	var operands []string
	for i := 1; i < len(words); i++ {
		flag, value, ok := strings.Cut(words[i], "=")
		set, hint := flag == "--set" || flag == "-s", strings.HasPrefix(flag, "--hint") || flag == "-h"
		if (set || hint) && !ok && i+1 < len(words) && !strings.HasPrefix(words[i+1], "-") {
			i++
			value = words[i]
		}
		switch {
		case set && value != "":
			variable = value
		case flag == "--fs-uuid" || flag == "-u":
			byUUID = true
		case !strings.HasPrefix(flag, "-"):
			operands = append(operands, words[i])
		}
	}
	if strings.HasPrefix(words[0], "search.") && len(operands) > 1 {
		variable = operands[1]
	}
	if !byUUID || len(operands) == 0 || strings.ContainsRune(operands[0], unknown) {
		return variable, ""
	}
	return variable, "UUID=" + operands[0]
}

// onVolume gives the booted system's name for a file that GRUB finds on a volume.
// home is the place of the configuration that names it.
func (c *chain) onVolume(home Place, volume, word string) string {
	name := c.nameOn(home, volume, word)
	c.named[name] = true
	return name
}

func (c *chain) nameOn(home Place, volume, word string) string {
	if device, rest, ok := strings.Cut(strings.TrimPrefix(word, "("), ")"); ok && strings.HasPrefix(word, "(") {
		volume, word = device, rest
	}
	word = path.Join("/", word)
	if c.lookups++; c.lookups > maxLookups {
		c.fail("the boot loaders name more than %d files", maxLookups)
		return home.name(word)
	}
	candidates := c.byUUID(volume)
	elsewhere := strings.HasPrefix(volume, "UUID=") && len(candidates) == 0
	switch {
	case elsewhere:
		candidates = []Place{home} // where GRUB stays if its search finds nothing
	case len(candidates) == 0:
		candidates = append([]Place{home}, c.places...)
	}
	for _, p := range candidates {
		if p.has(word) {
			return p.name(word)
		}
	}
	// On btrfs the path begins with the subvolume that is mounted.
	if i := strings.LastIndex(word, "/boot/"); i > 0 {
		if p, file, ok := c.find(word[i:]); ok && (p.UUID == "" || p.UUID == candidates[0].UUID) {
			return p.name(file)
		}
	}
	if elsewhere {
		return "(" + volume + ")" + word
	}
	return candidates[0].name(word)
}

// byUUID gives the places of a filesystem.
func (c *chain) byUUID(volume string) []Place {
	uuid, ok := strings.CutPrefix(volume, "UUID=")
	var all []Place
	for _, p := range c.places {
		if ok && p.UUID != "" && strings.EqualFold(p.UUID, uuid) {
			all = append(all, p)
		}
	}
	return all
}

// grubEnvironment reads GRUB's environment block (grub-editenv(1)).
func (c *chain) grubEnvironment(p Place, dirs ...string) map[string]string {
	variables := map[string]string{}
	for _, dir := range dirs {
		for line := range strings.Lines(etc.ReadUpTo(p.FS, inside(path.Join(dir, "grubenv")), maxEnvironment)) {
			if name, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "="); ok && !strings.HasPrefix(name, "#") {
				variables[name] = value
			}
		}
	}
	return variables
}

// maxEnvironment is more than GRUB's environment block has, which is 1 KiB.
const maxEnvironment = 64 << 10
