// Package ostree knows systems that are deployments of ostree, and changes them.
//
// Such a system is no tree on a disk. A volume has a repository (ostree/repo), in which
// every file is an object, named by its content, and deployments: trees of hard links to
// objects, each with an /etc of its own. Several deployments of one operating system
// share a /var; together they are a state root (ostree/deploy/OS). A loader entry says by
// ostree= which deployment starts: it is the name of a link, through ostree/boot.0 or
// boot.1, to the deployment's directory (ostree-prepare-root(1)).
//
//	boot/loader -> loader.1                      entries/ostree-2.conf: the highest is the default
//	ostree/boot.1 -> boot.1.0                    OS/BOOTCSUM/0 -> ../../../deploy/OS/deploy/COMMIT.0
//	ostree/deploy/OS/deploy/COMMIT.0             a tree, and beside it COMMIT.0.origin
//	ostree/deploy/OS/var
//
// # What is found
//
// [Find] gives the deployments by the entries that a boot loader has, and refuses what is
// damaged or was left half-made: ostree would not go on from there either. It reads, and
// needs no ostree.
//
// # What is changed
//
// A file of a deployment is never written: it is an object, and others are links to the
// same. A change is a new commit, and a new deployment of it. That takes the program
// ostree, and only the machine's own: that of the image would be a stranger's code with
// the rights of the machine's root. A [Sysroot] runs it in a [mount.Room], because what
// it works on is a stranger's as well:
//
//   - links of the image lead nowhere but inside the image and the room, in which there
//     is nothing of the machine but libraries, read-only;
//   - nothing of the image can be executed: its mounts are noexec. ostree would do so in
//     two ways. If the image has a policy of SELinux, it runs its semodule by
//     /usr/bin/bwrap, which in the room is a program that does nothing. And where GRUB has
//     a menu of its own, it runs the image's grub2-mkconfig: it is told that there is no
//     boot loader (sysroot.bootloader=none), and images with such a menu are refused;
//   - of the repository's configuration it sees no more than what is known to be harmless;
//   - it has no network.
//
// [Sysroot.Apply] puts what steps have changed, the upper directory of an overlay, into a
// checkout. [Finish] is all of it in order: what steps have left becomes a commit and a
// deployment.
//
// What is on the disk meanwhile is in ostree/imgmut ([Work]), mode 0700. A crash needs no
// mending here: all this is done in a fork that becomes an image only when it is whole.
package ostree

import (
	"path"
	"strconv"
)

// Deployment is one system that a volume holds.
type Deployment struct {
	OS     string `json:"os"`     // its state root
	Commit string `json:"commit"` // 64 hexadecimal digits
	Serial int    `json:"serial"` // tells deployments of one commit apart
	// Entry is the file that starts it, as the booted system names it, and Loader what
	// reads that: "bls" for a loader entry. They are empty for one that no entry starts,
	// which ostree removes with its next change.
	Entry   string `json:"entry,omitempty"`
	Loader  string `json:"loader,omitempty"`
	Default bool   `json:"default,omitempty"` // it starts if nobody chooses
	// Rollback says that it is the one which ostree admin rollback makes the default.
	Rollback bool `json:"rollback,omitempty"`
	Pinned   bool `json:"pinned,omitempty"` // ostree removes it only when told so by name
	// Image is the container image that bootc has it from, Refspec the branch of ostree;
	// both are empty if its origin is not known.
	Image   string `json:"image,omitempty"`
	Refspec string `json:"refspec,omitempty"`
	Name    string `json:"name,omitempty"`    // of its operating system, PRETTY_NAME of os-release
	Options string `json:"options,omitempty"` // the kernel's command line
	// Composefs says that it starts from an image of composefs.
	Composefs bool `json:"composefs,omitempty"`
}

// Dir is the directory of the deployment in its volume.
func (d Deployment) Dir() string {
	return path.Join(stateRoots, d.OS, "deploy", d.Commit+"."+strconv.Itoa(d.Serial))
}

// Var is the directory of its /var in the volume.
func (d Deployment) Var() string { return path.Join(stateRoots, d.OS, "var") }

const (
	stateRoots = "ostree/deploy"
	repository = "ostree/repo"
)

// Work is the directory in the volume that is imgmut's own while a fork is worked on. No
// image has it. [Upper] and [Workdir] are the overlay's, in which steps see /usr as one
// that they can change: what they have changed is in Upper.
const (
	Work    = "ostree/imgmut"
	Upper   = Work + "/u"
	Workdir = Work + "/w"
)
