package step

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
	"github.com/imgmut/imgmut/recipes"
)

var initramfsKind = recipes.Kind[Step]{
	Name:    "initramfs",
	Version: 1,
	Summary: "make the initial RAM disks anew, with the image's own tool and for any machine",
	Example: `
- initramfs: all
- initramfs: {kernels: [6.1.0-37-cloud-amd64]}
`,
	New: func() Step { return new(Initramfs) },
}

// Initramfs makes the initrds of installed kernels anew, with update-initramfs, dracut or
// mkinitcpio, whichever the image has. They are for any machine, whatever the image's own
// configuration says, and have the drivers of virtual machines, or the step fails: the
// machine that builds an image is not the one that starts it.
type Initramfs struct {
	Kernels []string `yaml:"kernels" json:"kernels,omitempty"` // versions; all that are installed if empty
}

// FromScalar reads the short form: all.
func (i *Initramfs) FromScalar(s string) error {
	if s != "all" {
		return fmt.Errorf("%q: want all, or a list of kernels", s)
	}
	return nil
}

// FromList reads the short form, versions of kernels.
func (i *Initramfs) FromList(l []string) error { i.Kernels = l; return nil }

// Boot implements [Booter].
func (i *Initramfs) Boot() bool { return true }

// PlainOnly implements [PlainOnly].
func (i *Initramfs) PlainOnly() string {
	return "the initrd of a system of ostree is part of its commit, which this step does not change"
}

// kernelVersion is what a kernel is called, which is the name of a directory.
var kernelVersion = lazyregexp.New(`^[0-9][A-Za-z0-9._+~-]*$`)

// Validate implements [Step].
func (i *Initramfs) Validate(o recipes.Options) recipes.Problems {
	v := o.Validation()
	v.CheckEach("kernels", i.Kernels, func(name string) error {
		if !kernelVersion().MatchString(name) {
			return fmt.Errorf("%q: want the version of a kernel, as uname -r prints it", name)
		}
		return nil
	})
	return v.Problems()
}

// Apply implements [Step].
func (i *Initramfs) Apply(ctx context.Context, g Guest, _ *Source) error {
	files := g.Files()
	if etc.Exists(files, "sysroot/ostree") {
		return errors.New(i.PlainOnly()) // a step before has made it one
	}
	kernels, err := installedKernels(files)
	if err != nil {
		return err
	}
	for _, name := range i.Kernels {
		if !slices.Contains(kernels, name) {
			return fmt.Errorf("no kernel %s is installed (there are %s)", name, strings.Join(kernels, ", "))
		}
	}
	if len(i.Kernels) > 0 {
		kernels = i.Kernels
	}
	if len(kernels) == 0 {
		return errors.New("no kernel is installed")
	}
	entries, err := loaderEntries(g)
	if err != nil {
		return err
	}
	for _, name := range kernels {
		c := agent.Command{Title: "make an initrd", Script: initrdScript,
			Env: map[string]string{"version": name, "initrd": initrdOf(entries, name)}}
		if err := g.Run(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// installedKernels are the versions that have modules, and a kernel.
func installedKernels(files fs.FS) (versions []string, err error) {
	list, err := fs.Glob(files, "usr/lib/modules/*")
	if err != nil {
		return nil, err
	}
	for _, dir := range list {
		name := path.Base(dir)
		if kernelVersion().MatchString(name) &&
			(etc.Exists(files, dir+"/vmlinuz") || etc.Exists(files, "boot/vmlinuz-"+name) || etc.Exists(files, dir+"/pkgbase")) {
			versions = append(versions, name)
		}
	}
	return versions, nil
}

// initrdOf is the initrd that a loader's entry has for a kernel, "" if none says.
func initrdOf(entries []boot.Entry, version string) string {
	for _, e := range entries {
		if e.Version != version {
			continue
		}
		for _, initrd := range e.Initrds {
			if path.IsAbs(initrd) && !strings.Contains(initrd, "ucode") {
				return initrd
			}
		}
	}
	return ""
}

// initrdScript makes one, and looks whether a virtual machine can start with it.
const initrdScript = `
has() { command -v "$1" >/dev/null; }
if has update-initramfs; then
	if [ -e "/boot/initrd.img-$version" ]; then update-initramfs -u -k "$version"; else update-initramfs -c -k "$version"; fi
	made=/boot/initrd.img-$version list=lsinitramfs
elif has dracut; then
	made=${initrd:-/boot/initramfs-$version.img} list=lsinitrd
	dracut --force --no-hostonly "$made" "$version"
elif has mkinitcpio; then
	made=${initrd:-/boot/initramfs-linux.img} list=lsinitcpio
	mkinitcpio -k "$version" -g "$made"
else
	echo "the image has no update-initramfs, dracut or mkinitcpio" >&2
	exit 1
fi
has $list || { echo "the image has no $list, by which to see whether $made has the drivers of virtual machines" >&2; exit 1; }
$list "$made" >/run/initrd-files
for driver in virtio_blk virtio_pci; do
	name=$(echo $driver | sed 's/_/[_-]/g')
	! grep -q "/$name\.ko" "/usr/lib/modules/$version/modules.dep" || grep -q "/$name\.ko" /run/initrd-files || {
		echo "$made has no $driver, without which no virtual machine starts" >&2
		exit 1
	}
done
`
