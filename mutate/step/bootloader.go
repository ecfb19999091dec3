package step

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/recipes"
)

var bootloaderKind = recipes.Kind[Step]{
	Name:    "bootloader",
	Version: 1,
	Summary: "install a boot loader, with the image's own program",
	Example: `
- bootloader: grub-bios
- bootloader: {install: grub-efi, path: vendor}
- bootloader: systemd-boot
`,
	New: func() Step { return new(Bootloader) },
}

// Bootloader installs a boot loader of which the image has the program: GRUB for BIOS, in
// front of the partitions or in one for it; GRUB for EFI; or systemd-boot, with an entry
// for each installed kernel. No variable of any firmware is set: a machine starts from
// the path for removable media, unless it is told of the vendor's.
type Bootloader struct {
	Install string `yaml:"install" json:"install"`     // grub-bios, grub-efi or systemd-boot
	Path    string `yaml:"path" json:"path,omitempty"` // of grub-efi: removable (if empty) or vendor
}

// bootloaders are the scripts that install one.
var bootloaders = map[string]string{
	"grub-bios": grubWords + `
$install --target=i386-pc /dev/vda
` + grubMenu,
	"grub-efi": findESP + grubWords + `
case $(uname -m) in
x86_64) target=x86_64-efi ;;
aarch64) target=arm64-efi ;;
*) fail "GRUB for EFI is not known for $(uname -m)" ;;
esac
set -- --target=$target --efi-directory="$esp" --no-nvram
if [ "$path" = removable ]; then set -- "$@" --removable; fi
$install "$@"
` + grubMenu,
	"systemd-boot": findESP + `
command -v bootctl >/dev/null || fail "the image has no bootctl: install its package, systemd-boot or systemd-udev"
bootctl --no-variables --esp-path="$esp" install
for dir in /usr/lib/modules/*; do
	version=${dir##*/}
	for kernel in "$dir/vmlinuz" "/boot/vmlinuz-$version"; do
		if [ -e "$kernel" ]; then
			kernel-install add "$version" "$kernel"
			break
		fi
	done
done
`,
}

const (
	failWord = `
fail() { echo "$*" >&2; exit 1; }
`
	// findESP finds where the system has its EFI system partition, which is the image's disk.
	findESP = failWord + `
esp=
while read -r source place kind _; do
	case $source:$kind in /dev/vda*:vfat | /dev/vda*:tmpfs) ;; *) continue ;; esac
	case $place in /boot/efi | /efi | /boot) esp=$place ;; esac
done </proc/mounts
[ -n "$esp" ] || fail "the system mounts no EFI system partition: have /etc/fstab mount it on /boot/efi, /efi or /boot"
`
	grubWords = menuWords + `
install=$(command -v grub-install || command -v grub2-install) || fail "the image has no grub-install: install its package"
`
	// menuWords have GRUB's menus made anew, by the image's own program: Debian's and its
	// kin's knows where they are.
	menuWords = failWord + `
menu() {
	if command -v update-grub >/dev/null; then update-grub; return; fi
	make=$(command -v grub2-mkconfig || command -v grub-mkconfig) || fail "the image has no grub-mkconfig"
	for file; do $make -o "$file"; done
}
`
	// grubMenu has the one made that GRUB reads where it was installed.
	grubMenu = `
dir=/boot/grub
[ ! -d /boot/grub2 ] || dir=/boot/grub2
menu $dir/grub.cfg
`
)

// FromScalar reads the short form, which to install.
func (b *Bootloader) FromScalar(s string) error { b.Install = s; return nil }

// Boot implements [Booter].
func (b *Bootloader) Boot() bool { return true }

// PlainOnly implements [PlainOnly].
func (b *Bootloader) PlainOnly() string {
	return "the boot loader of a system of ostree comes with its commits, and bootupd or ostree installs it"
}

// Validate implements [Step].
func (b *Bootloader) Validate(o recipes.Options) recipes.Problems {
	v := o.Validation()
	names := []string{"grub-bios", "grub-efi", "systemd-boot"}
	v.Want(slices.Contains(names, b.Install), "install", "%q: want %s", b.Install, strings.Join(names, ", "))
	v.Want(b.Path == "" || b.Path == "removable" || b.Path == "vendor", "path", "%q: want removable or vendor", b.Path)
	v.Want(b.Path == "" || b.Install == "grub-efi", "path", "only grub-efi has a choice: "+
		"systemd-boot is installed in both places, and BIOS knows no files")
	return v.Problems()
}

// Apply implements [Step].
func (b *Bootloader) Apply(ctx context.Context, g Guest, _ *Source) error {
	err := g.Run(ctx, agent.Command{Title: "install " + b.Install, Script: bootloaders[b.Install],
		Env: map[string]string{"path": cmp.Or(b.Path, "removable")}})
	if err != nil {
		return err
	}
	entries, err := loaderEntries(g)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return fmt.Errorf("%s is installed, but nothing of the image says what it is to start: is a kernel installed?", b.Install)
	}
	return nil
}
