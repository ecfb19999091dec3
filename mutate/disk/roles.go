package disk

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/gpt"
	"github.com/imgmut/imgmut/mutate/mount"
)

// findRoles mounts what may be root: it finds root by what is in it and the
// others by root's fstab, or by the type that has systemd mount them without.
func (i *Image) findRoles() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	l := i.Layout
	root, err := i.findRoot()
	if err != nil {
		return err
	}
	tree := i.trees[root.Slot]
	i.adding.Lock()
	defer i.adding.Unlock()
	root.Role, root.Mountpoint = Root, "/"
	l.OS, l.SELinux = osName(tree), usesSELinux(tree)
	if l.Arch, err = machineArch(tree); err != nil {
		return err
	}
	l.followFstab(tree)
	l.followTypes()
	for n := range l.Volumes {
		v := &l.Volumes[n]
		switch {
		case strings.EqualFold(v.Type, gpt.TypeESP.String()), v.Type == "0xef":
			v.Role = ESP
		case v.FS == "swap":
			v.Role = Swap
		}
	}
	return nil
}

// findRoot gives the one volume that holds an operating system. Its tree is open.
func (i *Image) findRoot() (*Volume, error) {
	var roots []*Volume
	var obstacles []string
	damaged := false
	for n := range i.Layout.Volumes {
		v := &i.Layout.Volumes[n]
		if what := unusable(v.FS); what != "" {
			obstacles = append(obstacles, fmt.Sprintf("%s holds %s, which imgmut cannot work in", v, what))
		}
		if !mount.Supported(v.FS) {
			continue
		}
		t, err := i.tree(*v)
		if hostFault(err) || errors.Is(err, mount.ErrNoLoop) {
			return nil, err
		}
		if err != nil {
			damaged = damaged || errors.Is(err, syscall.EUCLEAN) || errors.Is(err, syscall.EBADMSG) ||
				errors.Is(err, syscall.EIO)
			obstacles = append(obstacles, err.Error())
			continue
		}
		switch what := classify(t); what {
		case "":
		case "root":
			roots = append(roots, v)
		default:
			obstacles = append(obstacles, fmt.Sprintf("%s holds %s", v, what))
		}
	}
	if len(roots) > 1 {
		roots = typedRoots(roots)
	}
	switch {
	case len(roots) == 1:
		return roots[0], nil
	case len(roots) > 1:
		return nil, fault.New(fault.Image,
			"give the one that is meant the root type: sgdisk -t SLOT:8304 IMAGE (8305 for arm64)",
			"the image has %d roots: %s and %s each hold an operating system", len(roots), roots[0], roots[1])
	case len(obstacles) > 0:
		mend := "imgmut works on a root of ext4, XFS or btrfs that this kernel can mount"
		if damaged {
			mend = "check the filesystem with its own program (e2fsck, xfs_repair, btrfs check) on a copy of the image"
		}
		return nil, fault.New(fault.Image, mend, "the image has no usable root: %s", strings.Join(obstacles, "; "))
	}
	return nil, fault.New(fault.Image,
		"check that the file is a raw disk image: qemu-img convert -O raw makes one of qcow2 and others",
		"the image has no partition table and no filesystem that holds an operating system (no /etc/os-release)")
}

// hostFault tells an error of this machine, which lacks rights or loop devices,
// from one of the image.
func hostFault(err error) bool {
	for _, e := range []error{
		syscall.EPERM, syscall.EACCES, syscall.ENOENT, syscall.EBUSY, syscall.EMFILE, syscall.ENOMEM,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// typedRoots narrows several candidates to those that say they are root.
func typedRoots(candidates []*Volume) []*Volume {
	var typed []*Volume
	for _, v := range candidates {
		if strings.EqualFold(v.Type, gpt.TypeRootX86_64.String()) || strings.EqualFold(v.Type, gpt.TypeRootARM64.String()) {
			typed = append(typed, v)
		}
	}
	if len(typed) > 0 {
		return typed
	}
	return candidates
}
