package boot

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"
)

// maxEntries is how many files there may be beside loader entries, themselves
// among them: a directory of more is none of a boot loader's.
const maxEntries = 256

// loaderEntry is a loader entry (Boot Loader Specification), with what decides
// its place in the menu.
type loaderEntry struct {
	Entry
	sortKey, version string
	spent            bool     // it was tried as often as it may be, and never came up
	others           []string // files that it names besides, as it names them
}

// byLoader orders entries as systemd-boot shows them: those that are used up
// come last, others by sort-key, and the newest first.
func byLoader(a, b loaderEntry) int {
	return cmp.Or(
		cmp.Compare(boolean(a.spent), boolean(b.spent)),
		cmp.Compare(boolean(a.sortKey == ""), boolean(b.sortKey == "")),
		cmp.Compare(a.sortKey, b.sortKey), byVersion(a, b))
}

// byVersion orders entries as GRUB shows them, the newest first.
func byVersion(a, b loaderEntry) int {
	return cmp.Or(CompareVersions(b.version, a.version), CompareVersions(b.ID, a.ID))
}

func boolean(is bool) int {
	if is {
		return 1
	}
	return 0
}

// readBLS takes the loader entries and the unified kernel images that
// systemd-boot shows, where GRUB has not taken them.
func (c *chain) readBLS() {
	var all []loaderEntry
	var wanted []string
	for _, p := range c.places {
		for _, dir := range c.directories(p) {
			entries := c.loaderEntries(p, dir)
			var environment map[string]string // where GRUB is the loader, unknown how it came to be
			if len(entries) > 0 {
				environment = c.grubEnvironment(p, path.Join(dir, "grub2"), path.Join(dir, "grub"))
			}
			value := func(name string) (string, bool) { v, ok := environment[name]; return v, ok }
			wanted = append(wanted, environment["saved_entry"])
			wanted = append(wanted, loaderDefault(c.read(p, path.Join(dir, "loader/loader.conf"))))
			for _, e := range entries {
				e.Options = expand(e.Options, value)
				c.locate(p, &e.Entry)
				all = append(all, e)
			}
		}
		all = append(all, c.unified(p, "Linux")...)
	}
	slices.SortStableFunc(all, byLoader)
	chosen, pinned := 0, false
	for _, w := range wanted {
		i := slices.IndexFunc(all, func(e loaderEntry) bool {
			matches, err := path.Match(strings.TrimSuffix(w, ".conf"), e.ID)
			return w != "" && err == nil && matches
		})
		if i >= 0 {
			chosen, pinned = i, !strings.ContainsAny(w, "*?[")
			break
		}
	}
	for i, e := range all {
		e.Default, e.pinned = i == chosen, i == chosen && pinned
		c.add(e.Entry)
	}
	c.readPrograms()
}

// loaderEntries reads the entries of a directory, once. Their files are as they
// name them.
func (c *chain) loaderEntries(p Place, dir string) (all []loaderEntry) {
	dir = path.Join(dir, "loader/entries")
	if c.seen[p.name(dir)] || !p.has(dir) {
		return nil
	}
	c.seen[p.name(dir)] = true
	total := 0
	for _, file := range c.names(p, dir) {
		name, ok := strings.CutSuffix(file, ".conf")
		if !ok {
			continue
		}
		text := c.read(p, path.Join(dir, file))
		if total += len(text); total > maxFile { // entries have some hundred bytes
			c.fail("the entries in %s have more than %d MiB", p.name(dir), maxFile>>20)
			return all
		}
		e, ok := parseEntry(text)
		for _, other := range e.others {
			c.onVolume(p, "", other)
		}
		if e.ID, e.spent = cutTries(name); ok {
			e.Loader, e.File = "bls", p.name(path.Join(dir, file))
			all = append(all, e)
		}
	}
	return all
}

// locate puts the booted system's names in place of those that an entry has for
// files of its own volume.
func (c *chain) locate(p Place, e *Entry) {
	if e.Kernel != "" {
		e.Kernel = c.onVolume(p, "", e.Kernel)
	}
	for i := range e.Initrds {
		e.Initrds[i] = c.onVolume(p, "", e.Initrds[i])
	}
}

// loaderEntries are those that blscfg reads, as items of a menu.
func (g *grub) loaderEntries() (items []*item) {
	if g.entriesRead {
		return nil
	}
	g.entriesRead = true
	places := append(g.byUUID(g.variables["root"]), g.home)
	for _, p := range append(places, g.places...) {
		for _, dir := range g.directories(p) {
			entries := g.chain.loaderEntries(p, dir)
			slices.SortStableFunc(entries, byVersion)
			for _, e := range entries {
				e.Options = expand(e.Options, g.value)
				e.Initrds = strings.Fields(expand(strings.Join(e.Initrds, " "), g.value))
				g.chain.locate(p, &e.Entry)
				items = append(items, &item{title: e.Title, id: e.ID, starts: []Entry{e.Entry}})
			}
			if len(items) > 0 {
				return items
			}
		}
	}
	return nil
}

// cutTries takes the counters of boot attempts off a name: NAME+LEFT or
// NAME+LEFT-DONE. It is spent if none are left.
func cutTries(name string) (id string, spent bool) {
	id, counters, ok := cutLast(name, "+")
	left, done, counted := strings.Cut(counters, "-")
	if _, err := strconv.ParseUint(done, 10, 32); !ok || counted && err != nil {
		return name, false
	}
	n, err := strconv.ParseUint(left, 10, 32)
	if err != nil {
		return name, false
	}
	return id, n == 0
}

func cutLast(s, separator string) (before, after string, ok bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}

// parseEntry reads an entry, if it is one that starts a kernel. Of options it takes no more than it needs to be
// longer than a kernel takes, because adding a line copies those before it.
func parseEntry(text string) (e loaderEntry, ok bool) {
	program := false
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")), " ")
		value = strings.TrimSpace(value)
		switch key {
		case "title":
			e.Title = value
		case "version":
			e.version, e.Version = value, value
		case "sort-key":
			e.sortKey = value
		case "linux":
			e.Kernel = value
		case "efi", "uki", "devicetree", "devicetree-overlay":
			program = program || !strings.HasPrefix(key, "devicetree") // a tool, a shell
			if len(e.others) < maxEntries {
				e.others = append(e.others, strings.Fields(value)...)
			}
		case "initrd":
			if len(e.Initrds) < maxEntries {
				e.Initrds = append(e.Initrds, strings.Fields(value)...)
			}
		case "options":
			if len(e.Options) <= maxCommandLine {
				e.Options = strings.TrimSpace(e.Options + " " + value) // there may be several
			}
		}
	}
	return e, e.Kernel != "" || !program && (e.Options != "" || e.Title != "")
}

// loaderDefault reads the default of loader.conf(5): a pattern of names.
func loaderDefault(text string) string {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "default" {
			return f[1]
		}
	}
	return ""
}

// expand puts in what GRUB knows of variables. What becomes longer than a kernel
// takes is no command line: a long variable could be named many times.
func expand(s string, value func(string) (string, bool)) string {
	var words []string
	length := 0
	for _, w := range strings.Fields(s) {
		if name, ok := strings.CutPrefix(w, "$"); ok {
			w, _ = value(strings.Trim(name, "{}"))
		}
		if w != "" && !strings.Contains(w, "$") {
			words = append(words, w)
			length += len(w) + len(" ")
		}
		if length > maxCommandLine+len(" ") {
			return ""
		}
	}
	return strings.Join(words, " ")
}
