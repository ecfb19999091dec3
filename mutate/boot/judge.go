package boot

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/imgmut/imgmut/mutate/bootfile"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// Finding is something about the way an image starts.
type Finding struct {
	Entry Entry  // that it is about, empty if about none
	What  string // as a sentence, without a capital and a period
	Mend  string
	Note  bool // worth telling, not wrong
}

// Key names a finding in whatever image it is made: UUIDs and machine-ids, which
// every image has of its own, and lines of files are left out.
func (f Finding) Key() string { return ownName().ReplaceAllString(f.What, "*") }

// ownName finds a UUID, of any form, a machine-id, and the line of a file.
var ownName = lazyregexp.New(`(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b` +
	`|\b[0-9a-f]{4}-[0-9a-f]{4}\b|\b[0-9a-f]{8}-[0-9a-f]{2}\b|\b[0-9a-f]{32}\b|:[0-9]+\b`)

// judge is a look at entries.
type judge struct {
	*chain
	entries []Entry
	isRoot  func(spec string) (is, known bool)
	all     []Finding
	told    map[string]bool // by key
	// more says that there is more than is told, and moreWrong that some of it is
	// not a note.
	more, moreWrong bool
}

// Judge says what is wrong with the way an image starts. isRoot says whether root=spec
// names the image's root, and whether that can be told. An image is wrong if a loader
// starts, by default or not, what is not there, is no kernel or initrd, or cannot work,
// if it does not know of the newest kernel, or if the root has no init; that it has no
// loader is a note, because it may be started from outside.
func (l *Loaders) Judge(isRoot func(spec string) (is, known bool)) []Finding {
	read, entries := l.chain, l.chain.entries
	j := &judge{chain: &chain{places: read.places, errs: slices.Clip(read.errs)}, entries: entries, isRoot: isRoot, told: map[string]bool{}}
	for _, s := range read.broken {
		j.wrong(Entry{File: s.file}, "install GRUB anew, or correct the path in it",
			"%s goes on with %s, which is not there", s.file, s.target)
	}
	for _, e := range entries {
		j.entry(e)
	}
	for _, e := range entries {
		if e.Default {
			j.newest(e)
		}
	}
	for _, err := range j.errs {
		j.wrong(Entry{}, "remove what is not needed", "what boots cannot be told: %v", err)
	}
	if len(entries) == 0 {
		j.init(Entry{})
	}
	if len(entries) == 0 && len(j.all) == 0 {
		j.note(Entry{}, "no boot loader was found: it boots only by a kernel from outside")
	}
	if j.more {
		j.all = append(j.all, Finding{What: "there is more to tell of what boots", Mend: "remove entries that are not needed",
			Note: !j.moreWrong})
	}
	return j.all
}

// maxFindings is how many are told, and maxWhat their length in bytes: a
// stranger's files may give any number.
const (
	maxFindings = 128
	maxWhat     = 1024
)

func (j *judge) tell(f Finding) {
	f.What = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(f.What[:min(len(f.What), maxWhat)], ""))
	switch key := f.Key(); {
	case j.told[key]:
	case len(j.all) == maxFindings:
		j.more, j.moreWrong = true, j.moreWrong || !f.Note
	default:
		j.told[key] = true
		j.all = append(j.all, f)
	}
}

func (j *judge) wrong(e Entry, mend, format string, args ...any) {
	j.tell(Finding{Entry: e, What: fmt.Sprintf(format, args...), Mend: mend})
}

func (j *judge) note(e Entry, format string, args ...any) {
	j.tell(Finding{Entry: e, What: fmt.Sprintf(format, args...), Note: true})
}

// entry judges one entry by itself.
func (j *judge) entry(e Entry) {
	spec := parameter(e.Options, "root")
	is, known := false, false
	if spec != "" {
		is, known = j.isRoot(spec)
	}
	other := known && !is
	if other && !e.Default { // os-prober(8) finds those
		j.note(e, "%s starts another system: %s is not the root of this image", e.File, spec)
		return
	}
	switch {
	case e.Kernel == "" && e.Loader != "uki":
		j.wrong(e, j.mend(e), "%s names no kernel", e.File)
		return
	case e.Kernel != "":
		if fault := j.unloadable(e.Kernel, bootfile.NoKernel); fault != "" {
			j.wrong(e, j.mend(e), "%s starts %s, which %s%s", e.File, e.Kernel, fault, because(fault, "a kernel was"))
			return
		}
	}
	for _, name := range e.Initrds {
		if fault := j.unloadable(name, e.noInitrd); fault != "" {
			j.wrong(e, j.mend(e), "%s loads %s, which %s%s", e.File, name, fault, because(fault, "an initrd was"))
		}
	}
	switch {
	case other:
		j.wrong(e, "let root= name the root of the image, best by UUID=", "%s starts with root=%s, which is not the root of this image",
			e.File, spec)
	case spec == "" && e.Loader != "uki" && e.Loader != "bls": // those find it by its type
		j.note(e, "%s starts %s without root=", e.File, e.Kernel)
	case spec != "" && !known:
		j.note(e, "%s starts with root=%s: whether that is the root of this image is not known", e.File, spec)
	}
	j.modules(e)
	if is || spec == "" {
		j.init(e)
	}
}

const gone = "is not there"

func because(fault, what string) string {
	if fault == gone {
		return ": " + what + " removed without its loader hearing of it"
	}
	return ""
}

// parameter gives the value of a parameter of the kernel; the last one counts.
func parameter(options, name string) (value string) {
	for _, w := range strings.Fields(options) {
		if v, ok := strings.CutPrefix(w, name+"="); ok {
			value = strings.Trim(v, `"`)
		}
	}
	return value
}

// modules judges whether a kernel finds its modules.
func (j *judge) modules(e Entry) {
	if !release().MatchString(e.Version) {
		j.note(e, "the version of %s is not known, and so not whether its modules are there", cmp.Or(e.Kernel, e.File))
		return
	}
	starts := fmt.Sprintf("%s starts %s, kernel %s", e.File, e.Kernel, e.Version)
	if e.Kernel == "" {
		starts = fmt.Sprintf("%s starts kernel %s", e.File, e.Version)
	}
	for _, dir := range moduleDirectories {
		dir := path.Join(dir, e.Version)
		names := j.list(dir)
		switch {
		case slices.Contains(names, "modules.dep"), len(names) > 0 && !slices.Contains(names, "kernel"):
			return // a kernel with all built in has no more than modules.builtin
		case len(names) > 0:
			j.wrong(e, "run depmod "+e.Version, "%s, which finds no module: %s has no modules.dep", starts, dir)
			return
		}
	}
	others := j.installedModules()
	if len(e.Initrds) == 0 && e.Loader != "uki" && len(others) == 0 {
		j.note(e, "%s, which has no modules: all that it needs has to be built in", starts)
		return
	}
	j.wrong(e, "install that kernel with its modules, or "+j.mend(e), "%s, whose modules are not there (/usr/lib/modules has %s)",
		starts, orNone(others))
}

// moduleDirectories are where kernels have their modules.
var moduleDirectories = []string{"/usr/lib/modules", "/lib/modules"}

// installedModules lists the kernels that have modules.
func (j *judge) installedModules() (versions []string) {
	for _, dir := range moduleDirectories {
		for _, name := range j.list(dir) {
			if release().MatchString(name) && !slices.Contains(versions, name) && len(j.list(path.Join(dir, name))) > 0 {
				versions = append(versions, name)
			}
		}
	}
	return versions
}

func orNone(names []string) string {
	const most = 4
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + "…"
	}
	return strings.Join(names, ", ")
}

// newest judges whether the default of a loader is the newest kernel there is.
func (j *judge) newest(def Entry) {
	if def.Version == "" {
		return
	}
	known := map[string]bool{}
	for _, e := range j.entries {
		if sameLoader(e, def) {
			known[e.Version] = true
		}
	}
	kernels := j.installedKernels()
	byAge := slices.SortedFunc(maps.Keys(kernels), func(a, b string) int { return CompareVersions(b, a) })
	for _, version := range byAge {
		file, newer := kernels[version], CompareVersions(version, def.Version) > 0
		switch {
		case !known[version] && newer:
			j.wrong(def, j.mend(def), "%s is newer than %s, which starts by default, and no entry of %s names it: "+
				"a kernel was installed without its loader hearing of it", file, def.Version, menu(def))
		case !known[version]:
			j.note(def, "no entry of %s starts %s", menu(def), file)
		case newer && !def.pinned:
			j.note(def, "%s is newer than %s, which %s starts by default", file, def.Version, menu(def))
		}
	}
}

// menu is where the entries beside an entry are.
func menu(e Entry) string {
	if e.Loader == "bls" || e.Loader == "uki" {
		return path.Dir(e.File)
	}
	return fileLine().ReplaceAllString(e.File, "")
}

var fileLine = lazyregexp.New(`:[0-9]+$`)

// sameLoader says whether two entries are in one menu: what systemd-boot shows
// are loader entries and unified kernel images.
func sameLoader(a, b Entry) bool {
	kind := func(e Entry) string {
		if e.Loader == "uki" {
			return "bls"
		}
		return e.Loader
	}
	return kind(a) == kind(b)
}

// noKernel are files that are called as a kernel is: backups, packed ones for
// debuggers, signatures.
var noKernel = lazyregexp.New(`\.(old|bak|gz|xz|zst|sig|hmac|dpkg-\w+|rpm\w+)$`)

// installedKernels lists the kernels that packages installed, by version.
func (j *judge) installedKernels() map[string]string {
	kernels := map[string]string{}
	add := func(file string) {
		if v := nameVersion(file); v != "" && j.unloadable(file, anything) == "" {
			kernels[v] = file
		}
	}
	for _, dir := range moduleDirectories {
		for _, version := range j.list(dir) {
			if file := path.Join(dir, version, "vmlinuz"); j.isFile(file) {
				add(file)
			}
		}
	}
	for _, name := range j.list("/boot") {
		if !noKernel().MatchString(name) {
			add(path.Join("/boot", name))
		}
	}
	return kernels
}

func (j *judge) isFile(name string) bool {
	p, file, ok := j.find(name)
	if !ok {
		return false
	}
	fi, err := fs.Stat(p.FS, file)
	return err == nil && fi.Mode().IsRegular()
}
