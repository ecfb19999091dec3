// Package boot reads what the boot loaders of an image start, and judges it:
// GRUB's configuration, loader entries and unified kernel images (Boot Loader
// Specification), extlinux and syslinux, and the firmware of a Raspberry Pi.
//
// [Entries] gives the ways to start the image's system that its files tell of.
// Each names files as the booted system does, so that they can be looked for by
// [Loaders.Judge]: a loader that names a kernel which is gone, or does not know of one
// that was installed, is the usual way for an image not to start.
//
// What firmware keeps of its own (the boot order of EFI, what was chosen for one
// start) is in no image and is not known here; neither is what a script decides.
// GRUB's conditions are not evaluated: an entry that stands in one is there, and
// of several values of a variable the last counts. More than one loader can be
// in an image, one for each firmware: each has a default of its own.
//
// All it reads may be damaged, or made to deceive: it takes what it
// understands, from files of no more than [maxFile] bytes, and has nothing
// executed. Trees come as [fs.FS], whose symbolic links must lead nowhere else.
package boot

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/imgmut/imgmut/mutate/etc"
)

// How much is read, because a stranger may have written it.
const (
	maxFile        = 1 << 20 // bytes of one file
	maxTotal       = 8 << 20 // bytes of all files, and of what variables in them expand to
	maxStarts      = 1024    // entries
	maxFiles       = 1024    // configurations
	maxLookups     = 8192    // names that they have for files
	maxInitrds     = 64      // of an entry
	maxCommandLine = 4096    // bytes that a kernel takes (COMMAND_LINE_SIZE)
)

// Entry is one way to start the image's system.
type Entry struct {
	// Loader is what reads it: "grub", "bls" (loader entries, read by GRUB or
	// systemd-boot), "uki", "extlinux", "syslinux" or "raspberry".
	Loader  string
	File    string // that says so, as the booted system names it, and the line: "/boot/grub/grub.cfg:132"
	ID      string
	Title   string
	Kernel  string   // as the booted system names it, "" if it is inside File
	Initrds []string // likewise
	// Options is the kernel's command line. Words with a variable that is not
	// known are left out.
	Options string
	// OptionsFile is the file that has Options, if that is not File.
	OptionsFile string
	// Version is the kernel's: what the kernel says of itself (the header of a
	// bzImage, .uname of a unified kernel image), else what its name ends with,
	// else what the entry says.
	Version string
	Default bool // what its loader starts if nobody chooses
	pinned  bool // that default was chosen by somebody, and not by age
	// hypervisor says that it is what starts the kernel, with Initrds among its modules.
	hypervisor bool
}

// Place is a tree of the image.
type Place struct {
	// At is where the booted system has it mounted: "/", "/boot", "/boot/efi";
	// empty if nowhere, as an EFI system partition may be. Files of such a one
	// are named "(ESP)/…".
	At   string
	UUID string // of its filesystem, by which GRUB finds it; empty if not known
	FS   fs.FS
}

// CommandLine gives the command line that the kernel of the image has when it
// starts by itself, empty if no file says. The trees are those of the image's
// volumes: its root, with what is mounted in it, and then those that are not, as
// the EFI system partition may be.
func CommandLine(trees ...fs.FS) string {
	var places []Place
	for i, tree := range trees {
		// Where it is, new entries are made of it (kernel-install(8)).
		if line := clean(etc.ReadUpTo(tree, "etc/kernel/cmdline", maxFile)); line != "" {
			return line
		}
		places = append(places, Place{At: map[bool]string{true: "/"}[i == 0], FS: tree})
	}
	entries, _ := Entries(places) // what cannot be read says nothing
	for _, e := range entries {
		if e.Default && e.Options != "" {
			return e.Options
		}
	}
	return ""
}

// chain is all that was read of an image's loaders.
type chain struct {
	places   []Place
	entries  []Entry
	broken   []stub
	seen     map[string]bool // files that were read, by their names
	named    map[string]bool // files that are read or named, by the booted system's names
	total    int             // bytes read so far
	files    int             // how many
	lookups  int             // files looked for
	programs int             // EFI programs looked into
	errs     []error
}

// stub is a configuration that only goes on with another, which is not there.
type stub struct{ file, target string }

func readChain(places []Place) *chain {
	c := &chain{places: withMounts(places), seen: map[string]bool{}, named: map[string]bool{}}
	menus := c.readGRUB() // first, because it may read the loader entries
	c.readBLS()
	c.entries = append(c.entries, menus...)
	c.readExtlinux()
	c.readRaspberry()
	slices.SortStableFunc(c.entries, func(a, b Entry) int {
		return map[bool]int{true: 0, false: 1}[a.Default] - map[bool]int{true: 0, false: 1}[b.Default]
	})
	return c
}

// fail notes that something was too much. It is told once.
func (c *chain) fail(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if !slices.ContainsFunc(c.errs, func(e error) bool { return e.Error() == err.Error() }) {
		c.errs = append(c.errs, err)
	}
}

// read gives the text of a regular file, empty if there is none.
func (c *chain) read(p Place, file string) string {
	fi, err := fs.Stat(p.FS, file)
	if err != nil || !fi.Mode().IsRegular() {
		return ""
	}
	if fi.Size() > maxFile {
		c.fail("%s has more than %d MiB", p.name(file), maxFile>>20)
		return ""
	}
	if c.files++; c.files > maxFiles {
		c.fail("the boot loaders have more than %d files", maxFiles)
		return ""
	}
	c.named[p.name(file)] = true
	text := etc.ReadUpTo(p.FS, path.Clean(file), maxFile)
	if !c.spend(len(text)) {
		return ""
	}
	return text
}

// spend counts bytes that were read or made, and says whether there may be more.
func (c *chain) spend(n int) bool {
	if c.total += n; c.total > maxTotal {
		c.fail("the files of the boot loaders have more than %d MiB", maxTotal>>20)
	}
	return c.total <= maxTotal
}

// add takes entries, and completes them.
func (c *chain) add(entries ...Entry) {
	for _, e := range entries {
		c.entries = append(c.entries, c.complete(e))
	}
}

func (c *chain) complete(e Entry) Entry {
	if len(e.Initrds) > maxInitrds {
		c.fail("an entry of %s has more than %d initrds", menu(e), maxInitrds)
		e.Initrds = e.Initrds[:maxInitrds]
	}
	e.Options = clean(e.Options)
	e.Version = c.version(e)
	return e
}

// clean makes one line of words that a kernel can take.
func clean(s string) string {
	between := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }
	line := strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, ""), between), " ")
	if len(line) > maxCommandLine {
		return ""
	}
	return line
}
