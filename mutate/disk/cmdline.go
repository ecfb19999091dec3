package disk

import (
	"slices"
	"strings"
)

// kernelSays gives what the kernel's command line says. To find that takes reading all
// that boot loaders have, so it is asked for only where it decides something.
type kernelSays func() kernelLine

// kernelLine is what the kernel's command line says of mounts (bootparam(7),
// systemd-fstab-generator(8)).
type kernelLine struct {
	root, rootFlags string
	usr, usrFlags   string
	ostree          string // which deployment starts
	noAuto          bool   // nothing is mounted by type
}

// parseKernelLine reads a command line. Of an option that is there twice, the last
// counts.
func parseKernelLine(line string) (k kernelLine) {
	for word := range strings.FieldsSeq(line) {
		key, value, _ := strings.Cut(word, "=")
		value = strings.Trim(value, `"`)
		switch key {
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
		case "systemd.gpt_auto": // with rd. before it, it is for the initrd alone
			k.noAuto = slices.Contains([]string{"0", "no", "n", "false", "f", "off"}, strings.ToLower(value))
		}
	}
	return k
}
