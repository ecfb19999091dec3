package disk

import (
	"fmt"
	"path"
	"strings"

	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// A system of ostree is no tree on a disk. It is a deployment, one of several
// directories of a volume that has a repository, and the system sees it as its root
// (ostree-prepare-root(1)): read-only, but for an /etc of its own and a /var that all
// deployments of one operating system share. The whole of the volume is on /sysroot.

// deploymentPath is where a deployment is in its volume: of which operating system,
// and its name, a checksum and a number.
var deploymentPath = lazyregexp.New(`^(?:\.\./)*(?:ostree/)?deploy/([^/]+)/deploy/([0-9a-f]{64}\.[0-9]+)$`)

// deployment gives what the system mounts of a volume with deployments, / first: the one
// that the boot loader starts by default.
func (i *Image) deployment(v Volume, tree *Tree, k kernelSays) ([]Mounted, error) {
	refuse := func(format string, args ...any) error {
		return fault.New(fault.Image, "ostree admin status, on a machine that runs it, says which deployments are whole",
			"%s holds deployments of ostree, but %s", v, fmt.Sprintf(format, args...))
	}
	starts := k().ostree
	if starts == "" {
		return nil, refuse("no boot loader's entry says which one starts (ostree=)")
	}
	link := strings.Trim(starts, "/")
	target, err := tree.ReadLink(link)
	if err != nil {
		return nil, refuse("/%s, which the boot loader starts, cannot be read: %v", link, err)
	}
	m := deploymentPath().FindStringSubmatch(target)
	if m == nil {
		return nil, refuse("/%s, which the boot loader starts, leads to %s", link, target)
	}
	state := path.Join("ostree/deploy", m[1])
	dir := path.Join(state, "deploy", m[2])
	if !etc.Exists(tree, path.Join(dir, "usr/lib/os-release")) || !etc.Exists(tree, path.Join(dir, "etc")) {
		return nil, refuse("/%s, which the boot loader starts, is not whole", dir)
	}
	const from = "ostree's deployment"
	mounts := []Mounted{
		{Mountpoint: "/", Slot: v.Slot, Sub: dir, ReadOnly: true, From: from},
		{Mountpoint: "/etc", Slot: v.Slot, Sub: path.Join(dir, "etc"), From: from},
		{Mountpoint: "/sysroot", Slot: v.Slot, Sub: ".", ReadOnly: true, From: from},
		{Mountpoint: "/var", Slot: v.Slot, Sub: path.Join(state, "var"), From: from},
	}
	return mounts, i.mount(mounts[0].part())[0]
}
