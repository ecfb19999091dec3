// Package refs finds where the files of an image name its volumes, and puts
// other names in place of old ones.
//
// Every image has partition UUIDs of its own, so whatever names one of its base
// must be rewritten: /etc/fstab, entries of boot loaders, the kernel command
// line inside a unified kernel image. What is found is checked, too: a name that
// no volume has is an image that does not boot.
package refs

import (
	"io/fs"
	"path"
	"regexp"
	"strings"

	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/fault"
)

// Files are the files of one volume.
type Files struct {
	FS  fs.FS
	FAT bool // names have no letter case
}

// Reference is a place where a file of the image names a volume.
type Reference struct {
	File string // below the root of that volume
	Spec string // as "PARTUUID=…"
	// Needed is false where the system does without: a mount with nofail or
	// noauto.
	Needed bool
}

// refFiles are the files that name volumes, below the root of a volume, as
// patterns of [path.Match]. On a volume of its own /boot is the root, so each
// is looked for with and without.
var refFiles = []string{
	"etc/fstab", "etc/crypttab", "etc/kernel/cmdline", "etc/default/grub", "etc/default/grub.d/*.cfg",
	"boot/loader/entries/*.conf", "boot/grub/grub.cfg", "boot/grub2/grub.cfg", "boot/extlinux/extlinux.conf", "boot/cmdline.txt",
	"loader/entries/*.conf", "grub/grub.cfg", "grub2/grub.cfg", "extlinux/extlinux.conf", "cmdline.txt",
	"EFI/*/grub.cfg", "boot/grub/grubenv", "boot/grub2/grubenv", "grub/grubenv", "grub2/grubenv",
	"boot/grub/custom.cfg", "boot/grub2/custom.cfg", "grub/custom.cfg", "grub2/custom.cfg",
	"boot/syslinux.cfg", "boot/syslinux/*.cfg", "syslinux.cfg", "syslinux/*.cfg", "boot/firmware/cmdline.txt",
	"usr/lib/kernel/cmdline", "etc/cmdline.d/*.conf", "etc/dracut.conf.d/*.conf", "etc/initramfs-tools/conf.d/*",
	"etc/systemd/system/*.mount", "etc/systemd/system/*.automount", "etc/systemd/system/*.swap",
}

// optional are those of refFiles that may well name what is not there: a disk
// that comes later, a swap that was.
var optional = regexp.MustCompile(`\.(mount|automount|swap)$|/conf\.d/`)

// References lists where the files name volumes.
func (f Files) References() []Reference {
	var refs []Reference
	all := func(name, text string) {
		for _, spec := range specs(text) {
			refs = append(refs, Reference{File: name, Spec: spec, Needed: !optional.MatchString(name)})
		}
	}
	for _, name := range f.glob(refFiles) {
		text := etc.Read(f.FS, name)
		if path.Base(name) == "fstab" {
			refs = append(refs, fstabReferences(name, text)...)
			continue
		}
		all(name, text)
	}
	for _, name := range f.glob(ukiFiles) {
		for _, l := range readUKI(f.FS, name).lines {
			all(name, l.text)
		}
	}
	return refs
}

// Rename puts other partition UUIDs in place of those that the files name. write gets each changed file; partUUIDs maps old, in lower case,
// to new, of the same length. It is an error of class [fault.Image] if a file
// that would have to change must not, because it is signed, or is too large to
// be looked at.
func (f Files) Rename(partUUIDs map[string]string, write func(name string, b []byte) error) error {
	renamed := func(text string) string {
		return partUUID.ReplaceAllStringFunc(text, func(old string) string {
			if fresh, ok := partUUIDs[strings.ToLower(old)]; ok {
				return fresh
			}
			return old
		})
	}
	for _, name := range f.glob(refFiles) {
		if fi, err := fs.Stat(f.FS, name); err == nil && fi.Mode().IsRegular() && fi.Size() > etc.MaxText {
			return fault.New(fault.Image, "make it smaller, or remove it",
				"%s has %d bytes, too many to look for the volumes that it names", name, fi.Size())
		}
		before := etc.Read(f.FS, name)
		if after := renamed(before); after != before {
			if err := write(name, []byte(after)); err != nil {
				return err
			}
		}
	}
	for _, name := range f.glob(ukiFiles) {
		b, err := readUKI(f.FS, name).rewrite(f.FS, name, renamed)
		if err == nil && b != nil {
			err = write(name, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// anyCase is for [fs.Glob] in a FAT volume, where names have no case.
var anyCase = regexp.MustCompile(`[a-zA-Z]`)

// glob lists the files that patterns name.
func (f Files) glob(patterns []string) []string {
	var paths []string
	for _, pattern := range patterns {
		if f.FAT {
			pattern = anyCase.ReplaceAllStringFunc(pattern, func(c string) string { return "[" + strings.ToLower(c) + strings.ToUpper(c) + "]" })
		}
		found, _ := fs.Glob(f.FS, pattern) // the patterns are well-formed
		paths = append(paths, found...)
	}
	return paths
}

func fstabReferences(name, text string) []Reference {
	var refs []Reference
	for _, m := range etc.ParseFstab(text) {
		if named := specs(m.Spec); len(named) == 1 {
			refs = append(refs, Reference{name, named[0], !m.Has("nofail") && !m.Has("noauto")})
		}
	}
	return refs
}

var (
	// spec finds KEY=value, with value possibly quoted, and the paths below
	// /dev/disk that say the same.
	spec = regexp.MustCompile(`\b(UUID|LABEL|PARTUUID|PARTLABEL)=("[^"\n]+"|[^\s"',]+)|/dev/disk/by-(uuid|label|partuuid|partlabel)/([^\s"',]+)`)
	// byUUID finds the UUID of grub's search command.
	byUUID = regexp.MustCompile(`\bsearch(?:\.fs_uuid|\b[^\n]*--fs-uuid)[^\n]*?\s([0-9A-Fa-f]{4,8}(?:-[0-9A-Fa-f]{4}){1,3}(?:-[0-9A-Fa-f]{12})?)\b`)
	// partUUID finds what looks like a partition UUID, GPT's or MBR's.
	partUUID = regexp.MustCompile(`(?i)\b(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{8}-[0-9a-f]{2})\b`)
)

// specs lists the volumes that a text names, each once. Lines that are
// comments or hold a variable are passed over.
func specs(text string) []string {
	var found []string
	seen := map[string]bool{}
	add := func(s string) {
		if !strings.ContainsAny(s, "$`\\") && !seen[s] {
			seen[s] = true
			found = append(found, s)
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		for _, m := range spec.FindAllStringSubmatch(line, -1) {
			if m[1] != "" {
				add(m[1] + "=" + strings.Trim(m[2], `"`))
			} else {
				add(strings.ToUpper(m[3]) + "=" + m[4])
			}
		}
		for _, m := range byUUID.FindAllStringSubmatch(line, -1) {
			add("UUID=" + m[1])
		}
	}
	return found
}
