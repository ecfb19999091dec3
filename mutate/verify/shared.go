package verify

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

var sharedCheck = judged("shared identity", 1, shared)

// shared tells of what a machine is to have of its own, and the image has already: all
// that are started from it, and of all images that share the layer, have the same.
// It may be meant, so it is never wrong.
func shared(_ context.Context, i *disk.Image) ([]finding, error) {
	trees, _, err := i.Trees()
	if err != nil {
		return nil, err
	}
	var found []finding
	for _, what := range []string{hostKeys(trees[0]), machineID(trees[0])} {
		if what != "" {
			found = append(found, finding{what: what, note: true})
		}
	}
	return found, nil
}

// maxKeys is how many files of the directory are looked through.
const maxKeys = 1000

// hostKeys tells of the private keys of sshd, "" if there are none.
func hostKeys(system fs.FS) string {
	names, err := etc.ReadDir(system, "etc/ssh", maxKeys)
	if err != nil {
		return ""
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		is, _ := path.Match("ssh_host_*_key", name)
		return !is || etc.ReadUpTo(system, path.Join("etc/ssh", name), etc.MaxText) == ""
	})
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("all machines made of this image have the same private ssh host keys (%s in /etc/ssh): have a step remove them "+
		"(rm /etc/ssh/ssh_host_*), and see that new ones are made at the first start, as cloud-init or ssh-keygen -A does",
		strings.Join(few(names), ", "))
}

// machineIDs are the files that systemd takes the machine-id from: the second if the
// first has none (machine-id(5), machine_id_setup in its source).
var machineIDs = []string{"etc/machine-id", "var/lib/dbus/machine-id"}

const maxID = 64 // bytes of such a file

var realID = lazyregexp.New(`^[0-9a-f]{32}\s*$`)

// machineID tells of a machine-id that is one, "" if there is none. The text does not
// show it, so that it is the same for all images.
func machineID(system fs.FS) string {
	for _, name := range machineIDs {
		if !realID().MatchString(etc.ReadUpTo(system, name, maxID)) {
			continue
		}
		return fmt.Sprintf("all machines made of this image have the same machine-id (/%s), by which DHCP servers and others "+
			"take them for one: have the last step empty it (truncate --size=0 /etc/machine-id; rm -f /var/lib/dbus/machine-id)", name)
	}
	return ""
}
