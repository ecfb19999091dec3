package boot

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// item is a line of a menu: an entry, which may start several kernels by its
// conditions, or a submenu.
type item struct {
	title, id string
	untitled  bool // it is no line of the menu
	starts    []Entry
	items     []*item
}

// grub is a run over a configuration.
type grub struct {
	*chain
	home        Place
	file        string // in home
	depth       int    // of files in files
	items       []*item
	starts      int      // kernels in all of them
	entriesRead bool     // the loader entries are among them
	wanted      string   // the default by the configuration, if it is fixed
	next        []string // configurations that it goes on with, by its conditions
	environment map[string]string
	variables   map[string]string
	blocks      []block
	conditions  []condition
	tooDeep     int // conditions that are open besides
}

// block is a pair of braces.
type block struct {
	item *item
	root string // the value to go back to
	skip bool   // a function: it is not known who calls it
}

// idOption is the variable that stands before the identifier of a menu entry.
const idOption = "menuentry_id_option"

// readGRUB reads the configurations of GRUB, and with them the loader entries
// that they have it read.
func (c *chain) readGRUB() []Entry {
	before := len(c.entries)
	for _, p := range c.places {
		for _, dir := range c.directories(p) {
			for _, name := range []string{"grub/grub.cfg", "grub2/grub.cfg"} {
				c.readMenu(p, path.Join(dir, name))
			}
		}
		for _, vendor := range c.names(p, "EFI") {
			c.readMenu(p, path.Join("EFI", vendor, "grub.cfg"))
		}
	}
	menus := slices.Clone(c.entries[before:])
	c.entries = c.entries[:before]
	return menus
}

// readMenu takes the entries of a configuration and of those it goes on with.
func (c *chain) readMenu(home Place, file string) {
	if c.seen[home.name(file)] || !home.has(file) {
		return
	}
	c.seen[home.name(file)] = true
	dir := path.Dir(file)
	g := &grub{chain: c, home: home, file: file, environment: c.grubEnvironment(home, dir), variables: map[string]string{
		"prefix": "/" + dir, "config_directory": "/" + dir, "root": "", idOption: "--id",
	}}
	g.run()
	wanted := cmp.Or(g.wanted, g.environment["saved_entry"])
	if first := g.starting(wanted); first != nil {
		first.Default, first.pinned = true, wanted != "" && wanted != "0"
	}
	before := len(c.entries)
	for _, i := range g.items {
		i.each(c.add)
	}
	if len(g.next) == 0 || len(c.entries) > before {
		return
	}
	for _, name := range g.next {
		if p, next, ok := c.find(name); ok {
			c.readMenu(p, next)
			return
		}
	}
	c.broken = append(c.broken, stub{home.name(file), strings.Join(g.next[:min(len(g.next), 2)], " or ")})
}

// starting is the kernel that starts by default: that of the menu, or, where it
// has none, what the configuration starts without a menu.
func (g *grub) starting(wanted string) *Entry {
	menu := slices.DeleteFunc(slices.Clone(g.items), func(i *item) bool { return i.untitled })
	if i := choose(menu, wanted); i != nil && i.first() != nil {
		return i.first()
	}
	for _, i := range g.items {
		if i.untitled {
			return i.first()
		}
	}
	return nil
}

// first is the first kernel of an item.
func (i *item) first() *Entry {
	if len(i.starts) > 0 {
		return &i.starts[0]
	}
	for _, sub := range i.items {
		if e := sub.first(); e != nil {
			return e
		}
	}
	return nil
}

func (i *item) each(visit func(...Entry)) {
	for _, e := range i.starts {
		if e.Kernel != unknownName {
			visit(e)
		}
	}
	for _, sub := range i.items {
		sub.each(visit)
	}
}

// run executes a configuration, as far as it is understood.
func (g *grub) run() {
	s := &shell{text: g.read(g.home, g.file), line: 1, value: g.value, spend: g.spend, turn: g.turn}
	for c, ok := s.next(); ok; c, ok = s.next() {
		switch {
		case c.closes:
			if n := len(g.blocks); n > 0 {
				g.variables["root"] = g.blocks[n-1].root
				g.blocks = g.blocks[:n-1]
			}
		case c.opens:
			g.open(c)
		case len(g.blocks) == 0 || !g.blocks[len(g.blocks)-1].skip:
			g.execute(c)
		}
	}
}

func (g *grub) value(name string) (string, bool) {
	for _, known := range []map[string]string{g.environment, g.variables} {
		if v, ok := known[name]; ok && len(v) <= maxCommandLine {
			return v, true
		}
	}
	return "", false
}

// open begins a block.
func (g *grub) open(c command) {
	b := block{root: g.variables["root"]}
	if n := len(g.blocks); n > 0 {
		b.item, b.skip = g.blocks[n-1].item, g.blocks[n-1].skip
	}
	switch name := first(c.words); {
	case name == "function":
		b.skip = true
	case (name == "menuentry" || name == "submenu") && len(c.words) > 1 && !b.skip:
		i := &item{title: c.words[1], id: idOf(c.words)}
		if b.item != nil {
			b.item.items = append(b.item.items, i)
		} else {
			g.items = append(g.items, i)
		}
		b.item = i
	}
	g.blocks = append(g.blocks, b)
}

func first(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return words[0]
}

// idOf gives the identifier of a menu entry.
func idOf(words []string) string {
	for i, w := range words[:len(words)-1] {
		if w == "--id" {
			return words[i+1]
		}
	}
	return ""
}

// execute does what a command does to the menu, the variables and the entry at
// hand.
func (g *grub) execute(c command) {
	words := c.words
	switch name := words[0]; name {
	case "linux", "linux16", "linuxefi":
		g.start(c)
	case "initrd", "initrd16", "initrdefi":
		if e := g.latest(); e != nil {
			e.Initrds = append(e.Initrds, g.files(words[1:])...)
		}
	case "multiboot", "multiboot2": // a hypervisor, whose first module is the kernel
		g.start(command{words: []string{name, unknownName}, line: c.line})
	case "module", "module2":
		g.module(slices.DeleteFunc(words[1:], func(w string) bool { return strings.HasPrefix(w, "--") }))
	case "search", "search.fs_uuid", "search.fs_label", "search.file":
		if variable, volume := searched(words); variable != "" {
			g.set(variable, volume)
		}
	case "devicetree", "chainloader", "legacy_configfile", "syslinux_configfile", "normal":
		g.files(words[1:]) // they are no entries, and yet read at boot
	case "configfile":
		g.files(words[1:])
		if len(words) > 1 && len(g.blocks) == 0 && !strings.ContainsRune(words[1], unknown) && len(g.next) < maxDepth {
			g.next = append(g.next, g.locate(words[1]))
		}
	case "source", ".":
		if len(words) > 1 {
			g.source(words[1])
		}
	case "blscfg": // once, as its entries are in the menu once
		g.items = append(g.items, g.loaderEntries()...)
	case "set":
		if len(words) > 1 {
			name, value, _ := strings.Cut(words[1], "=")
			g.set(name, value)
		}
	default:
		if name, value, ok := strings.Cut(name, "="); ok && len(words) == 1 {
			g.set(name, value)
		}
	}
}

func (g *grub) set(name, value string) {
	if name == "default" && !strings.ContainsRune(value, unknown) && value != g.environment["saved_entry"] {
		g.wanted = value
	}
	if len(value) > maxCommandLine || name == idOption { // which is empty for a GRUB older than 2.00
		return
	}
	if n := len(g.conditions); n > 0 {
		g.conditions[n-1].note(name, value, g.variables)
	}
	g.variables[name] = value
}

// unknownName is the kernel of an entry that has not named one yet.
const unknownName = "?"

// noLinux are programs that are started as if they were a kernel.
var noLinux = lazyregexp.New(`^memtest|\.(lkrn|c32|bin)$`)

// start begins with a kernel.
func (g *grub) start(c command) {
	if len(c.words) < 2 || strings.ContainsRune(c.words[1], unknown) || noLinux().MatchString(path.Base(c.words[1])) {
		return
	}
	if g.starts++; g.starts > maxStarts {
		g.fail("%s has more than %d entries", g.home.name(g.file), maxStarts)
		return
	}
	i := g.at()
	if i == nil {
		i = &item{untitled: true}
		g.items = append(g.items, i)
	}
	kernel := unknownName
	if c.words[1] != unknownName {
		kernel = g.locate(c.words[1])
	}
	i.starts = append(i.starts, Entry{
		Loader: "grub", File: fmt.Sprintf("%s:%d", g.home.name(g.file), c.line), ID: i.id, Title: i.title,
		Kernel: kernel, Options: known(c.words[2:]), hypervisor: kernel == unknownName,
	})
}

// module is a module for the hypervisor that was started.
func (g *grub) module(words []string) {
	e := g.latest()
	switch {
	case e == nil || len(words) == 0:
	case e.Kernel == unknownName:
		e.Kernel, e.Options = g.locate(words[0]), strings.TrimPrefix(known(words[1:]), "placeholder ")
	default:
		e.Initrds = append(e.Initrds, g.files(words[:1])...)
	}
}

// at is the item that commands are about: the innermost entry, or one without a
// title for those of the configuration itself; nil if there is none yet.
func (g *grub) at() *item {
	if n := len(g.blocks); n > 0 && g.blocks[n-1].item != nil {
		return g.blocks[n-1].item
	}
	if n := len(g.items); n > 0 && g.items[n-1].untitled {
		return g.items[n-1]
	}
	return nil
}

// latest is the kernel that was named last in the entry at hand.
func (g *grub) latest() *Entry {
	if i := g.at(); i != nil && len(i.starts) > 0 {
		return &i.starts[len(i.starts)-1]
	}
	return nil
}

// source runs another configuration in this one, unless it did before.
func (g *grub) source(word string) {
	if strings.ContainsRune(word, unknown) || g.depth == maxDepth {
		return
	}
	name := g.locate(word)
	p, file, ok := g.find(name)
	if !ok || g.seen[name] {
		return
	}
	g.seen[name] = true
	home, was := g.home, g.file
	g.home, g.file, g.depth = p, file, g.depth+1
	g.run()
	g.home, g.file, g.depth = home, was, g.depth-1
}

// maxDepth is how deep configurations may stand in others.
const maxDepth = 8

// files are the files that words name, as the booted system names them.
func (g *grub) files(words []string) []string {
	var names []string
	for _, w := range words {
		if w != "" && !strings.ContainsRune(w, unknown) {
			names = append(names, g.locate(w))
		}
	}
	return names
}

// locate finds a file by GRUB's name for it.
func (g *grub) locate(word string) string { return g.onVolume(g.home, g.variables["root"], word) }

// choose finds an item by its number, id or title, in submenus by several of
// them; the first if there is none.
func choose(items []*item, wanted string) *item {
	if len(items) == 0 {
		return nil
	}
	wanted, rest, below := strings.Cut(wanted, ">")
	chosen := items[0]
	if n, err := strconv.Atoi(wanted); err == nil && n >= 0 && n < len(items) {
		chosen = items[n]
	} else if i := slices.IndexFunc(items, func(i *item) bool {
		return wanted != "" && (i.id == wanted || i.title == wanted)
	}); i >= 0 {
		chosen = items[i]
	} else {
		below = false
	}
	if below && len(chosen.items) > 0 {
		return choose(chosen.items, rest)
	}
	return chosen
}
