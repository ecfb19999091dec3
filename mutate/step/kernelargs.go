package step

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/recipes"
)

var kernelArgsKind = recipes.Kind[Step]{
	Name:    "kernel-args",
	Version: 1,
	Summary: "change the kernel's command line, wherever the image's boot loaders keep it",
	Example: `
- kernel-args: {add: [console=ttyS0], remove: [quiet, splash], set: [panic=10]}
- kernel-args: [mitigations=auto]
`,
	New: func() Step { return new(KernelArgs) },
}

// KernelArgs changes the command line that the kernel gets: in loader entries, also those
// of ostree, which keeps them; in /etc/kernel/cmdline, of which new entries are made; in
// /etc/default/grub, of which GRUB's menu is made anew; in extlinux.conf and cmdline.txt.
// Afterwards each loader's default has it, or the step fails.
//
// A unified kernel image that has a command line in it is refused: it is signed, or to be,
// and is no place for settings.
type KernelArgs struct {
	Add    []string `yaml:"add" json:"add,omitempty"`       // behind the others, unless they are there
	Remove []string `yaml:"remove" json:"remove,omitempty"` // "quiet", or all of a name: "console"; or one value: "console=tty0"
	Set    []string `yaml:"set" json:"set,omitempty"`       // NAME=VALUE, in place of all of that name
}

// FromList reads the short form, what to add.
func (k *KernelArgs) FromList(l []string) error { k.Add = l; return nil }

// Boot implements [Booter].
func (k *KernelArgs) Boot() bool { return true }

// Validate implements [Step].
func (k *KernelArgs) Validate(o recipes.Options) recipes.Problems {
	v := o.Validation()
	v.Want(len(k.Add)+len(k.Remove)+len(k.Set) > 0, "", "nothing to do: want add, remove or set")
	v.CheckEach("add", k.Add, kernelWord)
	v.CheckEach("remove", k.Remove, kernelWord)
	v.CheckEach("set", k.Set, func(word string) error {
		if name, _, ok := strings.Cut(word, "="); !ok || name == "" {
			return fmt.Errorf("%q: want NAME=VALUE", word)
		}
		return kernelWord(word)
	})
	return v.Problems()
}

// kernelWord says what is wrong with a word of the command line. It has to stand in a
// shell's file as it does in a loader's.
func kernelWord(word string) error {
	bad := func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"'`$\\#;&|<>(){}*?!", r) }
	if word == "" || word == "--" || strings.HasPrefix(word, "=") || strings.ContainsFunc(word, bad) {
		return fmt.Errorf("%q: want one word of the kernel's command line, without spaces, quotes or what a shell takes for its own", word)
	}
	return nil
}

// cutInit parts a command line before "--", behind which is what init is given.
func cutInit(words []string) (kernel, init []string) {
	if n := slices.Index(words, "--"); n >= 0 {
		return words[:n:n], words[n:]
	}
	return words, nil
}

// edit changes a command line. What is behind "--" is for init.
func (k *KernelArgs) edit(line string) string {
	words, init := cutInit(strings.Fields(line))
	words = slices.DeleteFunc(words, k.removes)
	for _, word := range k.Set {
		at := slices.IndexFunc(words, sameName(word))
		words = slices.DeleteFunc(words, sameName(word))
		if at < 0 {
			at = len(words)
		}
		words = slices.Insert(words, min(at, len(words)), word)
	}
	for _, word := range k.Add {
		if !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	return strings.Join(append(words, init...), " ")
}

// without is edit that only takes away: also what is set elsewhere.
func (k *KernelArgs) without(line string) string {
	words, init := cutInit(strings.Fields(line))
	words = slices.DeleteFunc(words, func(word string) bool {
		return k.removes(word) || slices.ContainsFunc(k.Set, sameName(word))
	})
	return strings.Join(append(words, init...), " ")
}

func (k *KernelArgs) removes(word string) bool {
	return slices.ContainsFunc(k.Remove, func(r string) bool {
		return word == r || !strings.Contains(r, "=") && sameName(r)(word)
	})
}

// sameName tells words that have the name of one.
func sameName(word string) func(string) bool {
	name, _, _ := strings.Cut(word, "=")
	return func(other string) bool { n, _, _ := strings.Cut(other, "="); return n == name }
}

// done says what a command line still has, or has not, "" if it is as it should be.
func (k *KernelArgs) done(line string) string {
	words, _ := cutInit(etc.KernelWords(line))
	for _, word := range slices.Concat(k.Add, k.Set) {
		if !slices.Contains(words, word) {
			return "has no " + word
		}
	}
	for _, word := range words {
		if k.removes(word) && !slices.Contains(slices.Concat(k.Add, k.Set), word) {
			return "still has " + word
		}
	}
	return ""
}

// Apply implements [Step].
func (k *KernelArgs) Apply(ctx context.Context, g Guest, _ *Source) error {
	entries, err := loaderEntries(g)
	if err != nil {
		return err
	}
	edits := map[string]func(string) (string, error){}
	menus := map[string]bool{}
	for _, e := range entries {
		file, _, _ := strings.Cut(e.File, ":")
		if !path.IsAbs(file) {
			return fmt.Errorf("%s is on a volume that the system does not mount: have /etc/fstab mount it", e.File)
		}
		switch e.Loader {
		case "uki":
			if e.Options != "" {
				return fmt.Errorf("%s has its command line in it, with the kernel: to change it would break the signature, or be lost with "+
					"the next kernel. Change what it is made of (/etc/kernel/cmdline), and have the image's own tool make it anew", file)
			}
		case "bls":
			edits[file] = k.editEntry
		case "extlinux", "syslinux":
			edits[file] = k.editExtlinux
		case "raspberry":
			edits[e.OptionsFile] = k.editLine
		case "grub":
			menus[file] = true
		}
	}
	if etc.Exists(g.Files(), "etc/kernel/cmdline") {
		edits["/etc/kernel/cmdline"] = k.editLine
	}
	found, err := k.editDefaults(ctx, g)
	if err != nil {
		return err
	}
	for _, file := range slices.Sorted(maps.Keys(edits)) {
		if err := editFile(ctx, g, file, edits[file]); err != nil {
			return err
		}
	}
	if len(menus) > 0 {
		if err := g.Run(ctx, makeMenu(slices.Sorted(maps.Keys(menus))...)); err != nil {
			return err
		}
	}
	if len(edits) == 0 && !found {
		return errors.New("no file of the image says what the kernel's command line is: neither an entry of a boot loader nor " +
			"/etc/kernel/cmdline or /etc/default/grub")
	}
	return k.check(g)
}

// check reads what the loaders say now.
func (k *KernelArgs) check(g Guest) error {
	entries, err := loaderEntries(g)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if wrong := k.done(e.Options); e.Default && e.Loader != "uki" && wrong != "" {
			return fmt.Errorf("%s, which starts by default, %s: another file must say so, which imgmut does not know (%s)",
				e.File, wrong, e.Options)
		}
	}
	return nil
}

// loaderEntries are the ways to start the image.
func loaderEntries(g Guest) ([]boot.Entry, error) {
	loaders, err := g.Loaders()
	if err != nil {
		return nil, err
	}
	return loaders.Entries()
}

// editLine changes a file that is a command line.
func (k *KernelArgs) editLine(text string) (string, error) { return k.edit(text) + "\n", nil }

// editEntry changes a loader entry. Of several options lines one is made: they are one
// command line (Boot Loader Specification).
func (k *KernelArgs) editEntry(text string) (string, error) {
	var b, all strings.Builder
	for line := range strings.Lines(text) {
		if key, value := cutKey(line); key == "options" {
			all.WriteString(" " + value)
		}
	}
	options, written := "options "+k.edit(all.String())+"\n", false
	for line := range strings.Lines(text) {
		if key, _ := cutKey(line); key != "options" {
			b.WriteString(line)
			continue
		}
		if !written {
			b.WriteString(options)
		}
		written = true
	}
	if !written {
		return strings.TrimSuffix(text, "\n") + "\n" + options, nil
	}
	return b.String(), nil
}

// editExtlinux changes each APPEND of a configuration, and adds one where a label starts
// a kernel without.
func (k *KernelArgs) editExtlinux(text string) (string, error) {
	var b strings.Builder
	kernel, appended := "", true // of the label: the start of its line, and whether it has one
	end := func() {
		if !appended {
			b.WriteString(kernel + "append " + k.edit("") + "\n")
		}
		appended = true
	}
	for line := range strings.Lines(text) {
		key, value := cutKey(line)
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		switch strings.ToUpper(key) {
		case "LABEL":
			end()
		case "LINUX", "KERNEL":
			if !strings.HasSuffix(value, ".c32") {
				kernel, appended = indent, false
			}
		case "APPEND":
			line, appended = indent+strings.TrimSpace(line)[:len(key)]+" "+k.edit(value)+"\n", true
		}
		if !strings.HasSuffix(line, "\n") {
			line += "\n"
		}
		b.WriteString(line)
	}
	end()
	return b.String(), nil
}

// cutKey parts a line into its first word and the rest.
func cutKey(line string) (key, value string) {
	line = strings.TrimSpace(line)
	n := strings.IndexAny(line, " \t")
	if n < 0 {
		return line, ""
	}
	return line[:n], strings.TrimSpace(line[n:])
}

// makeMenu has GRUB's menus made anew.
func makeMenu(files ...string) agent.Command {
	script := menuWords + "menu"
	for _, file := range files {
		script += " '" + strings.ReplaceAll(file, "'", `'\''`) + "'"
	}
	return agent.Command{Title: "grub-mkconfig", Script: script + "\n"}
}
