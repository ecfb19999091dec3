package disk

import (
	"strings"

	"github.com/imgmut/imgmut/mutate/etc"
)

// kernelSays gives what the kernel's command line says. To find that takes reading all
// that boot loaders have, which is done once.
type kernelSays func() kernelLine

// kernelLine is what the kernel's command line says of mounts (bootparam(7),
// systemd-fstab-generator(8)). What it says of others than root and /usr, [etc.Mounts] knows.
type kernelLine struct {
	root, rootFlags string
	usr, usrFlags   string
	ostree          string // which deployment starts
	noAuto          bool   // nothing is mounted by type
	noFstab         bool   // fstab says nothing
	volatile        bool   // of root the system sees no more than /usr
	text            string // all of it
}

// parseKernelLine reads a command line. Of an option that is there twice, the last
// counts.
func parseKernelLine(line string) (k kernelLine) {
	k.text = line
	for _, word := range etc.KernelWords(line) {
		key, value, isSet := strings.Cut(word, "=")
		is, isBool := etc.ParseBool(value)
		switch key { // with rd. before it, a word is for the initrd alone
		case "root":
			k.root = value
		case "rootflags":
			k.rootFlags = value
		case "ostree":
			k.ostree = value
		case "mount.usr":
			k.usr = value
		case "mount.usrflags":
			k.usrFlags = value
		case "systemd.gpt_auto":
			k.noAuto = isBool && !is
		case "fstab":
			if isBool || !isSet {
				k.noFstab = isBool && !is
			}
		case "systemd.volatile":
			if isBool || !isSet || value == "state" || value == "overlay" {
				k.volatile = is || !isSet
			}
		}
	}
	return k
}
