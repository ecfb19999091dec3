// Package refs finds where the files of an image name its volumes, and puts
// other names in place of old ones.
//
// Every image has partition UUIDs of its own, and filesystem UUIDs if its recipe
// asks for them, so every file that names one of its base's must be rewritten:
// /etc/fstab, entries of boot loaders, the kernel command line inside a unified
// kernel image. References are also checked: an image does not boot if it names a
// volume that it does not have.
package refs

import (
	"context"
	"io/fs"
	"strings"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
	"github.com/imgmut/imgmut/mutate/uki"
)

// Files are the files of one volume.
type Files struct {
	FS    fs.FS
	FAT   bool // names have no letter case
	Whole bool // all of them may be read at boot, as those of a volume for /boot
	// Named are files, or directories of files, that boot loaders name, wherever they lie.
	Named []string
	// Tree tells the volume from others, in what is Known, and Clean are files in which
	// nothing is named that is looked for.
	Tree  string
	Clean Known
	// Unmoved says where the bytes of a file are, if they are those that were there when
	// Clean was found. It is nil where the filesystem tells of each change.
	Unmoved func(name string, size int64) (place string, ok bool)
}

// Reference is a place where a file of the image names a volume.
type Reference struct {
	File string // below the root of that volume
	Spec string // as "PARTUUID=…"
	// Needed is false where the system starts without that volume: a mount with
	// nofail or noauto.
	Needed bool
}

// refFiles are the files that name volumes, below the root of a volume, as
// patterns of [path.Match]. On a volume of its own /boot is the root, so each
// is looked for with and without.
var refFiles = []string{
	"etc/fstab", "etc/crypttab", "etc/kernel/cmdline", "etc/default/grub", "etc/default/grub.d/*.cfg",
	"boot/loader/entries/*.conf", "boot/grub/grub.cfg", "boot/grub2/grub.cfg", "boot/extlinux/extlinux.conf",
	"boot/cmdline.txt", "boot/refind_linux.conf", "refind_linux.conf",
	"loader/entries/*.conf", "grub/grub.cfg", "grub2/grub.cfg", "extlinux/extlinux.conf", "cmdline.txt",
	"EFI/*/grub.cfg", "boot/grub/grubenv", "boot/grub2/grubenv", "grub/grubenv", "grub2/grubenv",
	"boot/grub/custom.cfg", "boot/grub2/custom.cfg", "grub/custom.cfg", "grub2/custom.cfg",
	"boot/grub/*/load.cfg", "boot/grub2/*/load.cfg", "grub/*/load.cfg", "grub2/*/load.cfg",
	"boot/syslinux.cfg", "boot/syslinux/*.cfg", "syslinux.cfg", "syslinux/*.cfg", "boot/firmware/cmdline.txt",
	"boot/limine.conf", "boot/limine/limine.conf", "limine.conf", "limine/limine.conf", "EFI/*/limine.conf",
	"EFI/refind/*.conf", "EFI/BOOT/refind.conf", "EFI/*/refind_linux.conf",
	"boot/uEnv.txt", "boot/*Env.txt", "uEnv.txt", "*Env.txt", "boot/uboot.env.txt",
	"usr/lib/kernel/cmdline", "etc/cmdline.d/*.conf", "etc/kernel/cmdline.d/*.conf", "etc/kernel/uki.conf",
	"etc/dracut.conf", "etc/dracut.conf.d/*.conf", "etc/initramfs-tools/conf.d/*", "usr/share/initramfs-tools/conf.d/*",
	"etc/mkinitcpio.conf", "etc/mkinitcpio.conf.d/*", "etc/default/limine", "etc/default/u-boot", "etc/mdadm.conf", "etc/mdadm/mdadm.conf",
	"etc/systemd/system/*.mount", "etc/systemd/system/*.automount", "etc/systemd/system/*.swap",
	"usr/lib/systemd/system/*.mount", "usr/lib/systemd/system/*.automount", "usr/lib/systemd/system/*.swap",
}

// optional are those of refFiles that may name a volume that is not there: a
// disk that is added later, a swap partition that was removed, an example.
var optional = lazyregexp.New(`\.(mount|automount|swap)$|/conf\.d/|(^|/)(refind\.conf|[^/]*Env\.txt)$` +
	`|^etc/(default/(limine|u-boot)|kernel/uki\.conf|mdadm|mkinitcpio|dracut\.conf$)`)

// References lists where the files name volumes. It is an error of class
// [fault.Image] if there is too much to look into.
func (f Files) References(ctx context.Context) ([]Reference, error) {
	var refs []Reference
	add := func(name, text string) {
		for _, spec := range specs(text) {
			refs = append(refs, Reference{File: name, Spec: spec, Needed: !optional().MatchString(name)})
		}
	}
	err := f.eachText(ctx, func(name, text string) error {
		if isFstab(name) {
			refs = append(refs, fstabReferences(name, text)...)
		} else {
			add(name, text)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return refs, f.eachUKI(ctx, func(name string, u uki.File) error {
		for _, s := range u.Sections {
			add(name, s.Text())
		}
		return nil
	})
}

// Patch is bytes that take the place of as many in a file.
type Patch struct {
	File   string // below the root of its volume
	Offset int64
	Bytes  []byte
	Whole  bool // they are all that the file has from now on, which may be more or less
}

// mayName says whether a closer look at a text is worth it: a stranger's can be
// megabytes of nothing.
func mayName(text string) bool {
	return strings.Contains(text, "UUID") || strings.Contains(text, "LABEL") || strings.Contains(text, "/by-") ||
		strings.Contains(text, "uuid")
}

var (
	// spec finds KEY=value, with value possibly quoted, and the paths below
	// /dev/disk that say the same.
	spec = lazyregexp.New(`\b(UUID|LABEL|PARTUUID|PARTLABEL)=("[^"\n]+"|[^\s"',]+)` +
		`|/dev/disk/by-(uuid|label|partuuid|partlabel)/([^\s"',]+)`)
	// byUUID finds the UUID of grub's search command.
	byUUID = lazyregexp.New(`\bsearch(?:\.fs_uuid|\b[^\n]*--fs-uuid)[^\n]*?\s` +
		`([0-9A-Fa-f]{4,8}(?:-[0-9A-Fa-f]{4}){1,3}(?:-[0-9A-Fa-f]{12})?)\b`)
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
		if strings.HasPrefix(strings.TrimSpace(line), "#") || !mayName(line) {
			continue
		}
		for _, m := range spec().FindAllStringSubmatch(line, -1) {
			if m[1] != "" {
				add(m[1] + "=" + strings.Trim(m[2], `"`))
			} else {
				add(strings.ToUpper(m[3]) + "=" + m[4])
			}
		}
		for _, m := range byUUID().FindAllStringSubmatch(line, -1) {
			add("UUID=" + m[1])
		}
	}
	return found
}
