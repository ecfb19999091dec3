package tool

import (
	"os/exec"

	"github.com/imgmut/imgmut/mutate/fault"
)

// Program is a program of the host that imgmut runs.
type Program struct {
	Name    string
	Package string // Debian's, which other distributions mostly follow
	Use     string // which images need it; empty if all do
}

// programs is the one list of them. Those of systemd are machined's.
var programs = []Program{
	{"blkid", "util-linux", ""},
	{"mkfs.xfs", "xfsprogs", "making a pool"},
	{"e2fsck", "e2fsprogs", "images with ext4"},
	{"dumpe2fs", "e2fsprogs", "images with ext4"},
	{"xfs_repair", "xfsprogs", "images with XFS"},
	{"btrfs", "btrfs-progs", "images with btrfs"},
	{"resize2fs", "e2fsprogs", "larger disks with ext4"},
	{"tune2fs", "e2fsprogs", "new UUIDs of ext4"},
	{"xfs_admin", "xfsprogs", "new UUIDs of XFS"},
	{"btrfstune", "btrfs-progs", "new UUIDs of btrfs"},
	{"fatlabel", "dosfstools", "new serials of FAT"},
	{"swaplabel", "util-linux", "new UUIDs of swap"},
	{"fsck.vfat", "dosfstools", "images with an EFI system partition"},
	{"qemu-img", "qemu-utils", "importing vmdk, vhdx, vdi and vpc"},
	{"gpgv", "gpgv", "bases by a signed list of sums"},
	{"skopeo", "skopeo", "container images in the storage of podman"},
	{"ostree", "ostree", "images of ostree and bootc, where a recipe changes /usr or takes a container image"},
	{"unshare", "util-linux", "images of ostree and bootc, where a recipe changes /usr or takes a container image"},
	{"mcopy", "mtools", "writing to an EFI system partition where the kernel has no vfat"},
	{"mdel", "mtools", "removing files there"},
	{"mrd", "mtools", "removing directories there"},
}

// Programs lists the programs of the host that imgmut runs.
func Programs() []Program { return programs }

// Path is where a program is, or an error that says that it is nowhere.
func (p Program) Path() (string, error) { return exec.LookPath(p.Name) }

// Need is an error of class [fault.Host] if a program of the list is not installed.
func Need(name, what string) error {
	p := find(name)
	if _, err := p.Path(); err != nil {
		return p.missing(what)
	}
	return nil
}

func (p Program) missing(what string) error {
	return fault.New(fault.Host, p.Mend(), "%s: %s is not installed", what, p.Name)
}

// Mend is how to get a program that is missing.
func (p Program) Mend() string { return "install the package " + p.Package }

func find(name string) Program {
	for _, p := range programs {
		if p.Name == name {
			return p
		}
	}
	panic("tool: " + name + " is not in the list of programs")
}
