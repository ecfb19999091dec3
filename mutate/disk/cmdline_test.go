package disk

import "testing"

// TestKernelLine: each word says what it says to systemd; of one that is there twice the
// last counts, and one whose value cannot be is as if it was not there.
func TestKernelLine(t *testing.T) {
	for line, want := range map[string]kernelLine{
		"":             {},
		"quiet splash": {},
		"root=LABEL=a rootflags=subvol=x mount.usr=LABEL=b mount.usrflags=ro ostree=/ostree/boot.1": {
			root: "LABEL=a", rootFlags: "subvol=x", usr: "LABEL=b", usrFlags: "ro", ostree: "/ostree/boot.1"},
		"root=LABEL=a root=LABEL=b": {root: "LABEL=b"},
		"rd.root=LABEL=a":           {},

		"systemd.gpt_auto=no":                    {noAuto: true},
		"systemd.gpt_auto=yes":                   {},
		"systemd.gpt_auto=no systemd.gpt_auto=1": {},
		"systemd.gpt_auto=perhaps":               {},
		"systemd.gpt_auto":                       {},

		"fstab=no":           {noFstab: true},
		"fstab=0 fstab=yes":  {},
		"fstab=yes":          {},
		"fstab":              {},
		"fstab=0 fstab":      {},
		"fstab=0 fstab=what": {noFstab: true},

		"systemd.volatile":                              {volatile: true},
		"systemd.volatile=yes":                          {volatile: true},
		"systemd.volatile=state":                        {},
		"systemd.volatile=overlay":                      {},
		"systemd.volatile=yes systemd.volatile=state":   {},
		"systemd.volatile=yes systemd.volatile=overlay": {},
		"systemd.volatile=yes systemd.volatile=no":      {},
		"systemd.volatile=yes systemd.volatile=what":    {volatile: true},
	} {
		want.text = line
		if got := parseKernelLine(line); got != want {
			t.Errorf("%q says %+v, want %+v", line, got, want)
		}
	}
}
