package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
)

// bootCase is an image that is made of a base and has to start by itself, in a machine that knows nothing of imgmut.
type bootCase struct {
	name   string
	layout string // of the base
	steps  string // of the recipe, beside those that all have
	more   string // other keys of the recipe
	checks string // a script on the booted system, which has to end well
	// firmwares are what starts it. The first starts it in each run of the tests if it is always, and the others,
	// like all cases, with IMGMUT_BOOT=all: an emulated machine takes minutes.
	firmwares []fixtures.Firmware
	always    bool
}

var bootCases = []bootCase{
	{
		name: "grub", layout: "debian-cloud", firmwares: []fixtures.Firmware{fixtures.BIOS, fixtures.UEFI}, always: true,
	},
	{
		name: "uki", layout: "debian-13", firmwares: []fixtures.Firmware{fixtures.UEFI}, always: true,
		steps: `  - packages: {install: [systemd-ukify]}
  - run:
      boot: true
      script: |
        echo layout=uki > /etc/kernel/install.conf
        echo "root=UUID=$(findmnt -no UUID /) ro console=ttyS0" > /etc/kernel/cmdline
        version=$(ls /usr/lib/modules)
        kernel-install add "$version" "/boot/vmlinuz-$version"
        rm -r /efi/loader/entries/debian.conf /efi/debian
`,
		checks: `bootctl status --no-pager | grep -A 3 "Current Boot Loader:"; ls /efi/EFI/Linux/*.efi
test ! -e /efi/debian`,
	},
	{
		name: "btrfs", layout: "suse", firmwares: []fixtures.Firmware{fixtures.BIOS},
		checks: "test $(findmnt --noheadings --types btrfs | wc -l) -ge 10",
	},
	{
		name: "xfs", layout: "rhel", firmwares: []fixtures.Firmware{fixtures.BIOS},
		// Its own menu asks for a command that Debian 12's GRUB has not, which knows no place but /boot/grub.
		steps: `  - kernel-args: {add: [console=ttyS0]}
  - run: {boot: true, script: ln -s grub2 /boot/grub && grub-mkconfig -o /boot/grub2/grub.cfg}
`,
		checks: `test "$(findmnt --raw --noheadings --types xfs --output TARGET | sort | tr '\n' ' ')" = "/ /boot "`,
	},
	{
		name: "anew", layout: "debian-cloud", firmwares: []fixtures.Firmware{fixtures.BIOS, fixtures.UEFI},
		steps: `  - packages: {install: [linux-image-amd64]}
  - run: {boot: true, script: "DEBIAN_FRONTEND=noninteractive apt-get -y purge 'linux-image-*cloud*'"}
`,
		more: "identity: {filesystems: true}\ndisk: {size: +2G}\n",
		checks: `uname -r; case $(uname -r) in *cloud*) exit 1 ;; esac
test "$(findmnt --noheadings --output UUID /)" != 5173b296-a04e-4fc2-9365-4e90c71b2a05
test $(df --output=size / | tail -n 1) -gt 3500000`,
	},
	{
		name: "deployment", layout: "bootc-boot", firmwares: []fixtures.Firmware{fixtures.BIOS}, always: true,
		steps: `  - run: echo made > /usr/share/made && rm /usr/share/common-licenses/GPL-3
`,
		more: "ostree: {mode: commit}\n",
		checks: deployed + `
grep -x made /usr/share/made
test ! -e /usr/share/common-licenses/GPL-3
`,
	},
	{
		name: "container", layout: "bootc-boot", firmwares: []fixtures.Firmware{fixtures.BIOS},
		more: "bootc: {image: 'oci:CONTAINERS:v2'}\n",
		checks: deployed + `
grep -x v2 /usr/lib/image-version
hello
dpkg-query --admindir=/usr/lib/sysimage/dpkg --show hello`,
	},
}

// deployed asks a system of ostree whether it is the new one, and as such a system is.
const deployed = `ostree admin status
test $(ostree admin status | grep -c '^\*') = 1
test $(ostree admin status | grep -c '(rollback)') = 1
if touch /usr/share/other 2>/dev/null; then exit 1; fi
test -e /run/ostree-booted`

// booted asks a system that has started whether it is what an image should be: nothing failed, all that fstab mounts
// is mounted, and it is a machine of its own.
const booted = `set -e
test "$(systemctl is-system-running --wait)" = running || { systemctl --failed --no-legend; exit 1; }
test -z "$(systemctl --failed --no-legend)"
while read -r what where type options rest; do
	case $what in ''|'#'*) continue ;; esac
	case $type,$options in swap,*|*noauto*) continue ;; esac
	mountpoint -q "$where" || { echo "$where is not mounted"; exit 1; }
done </etc/fstab
cat /etc/proof
echo "machine $(cat /etc/machine-id)"
`

// TestBoot starts images as the machines do for which they are made, and asks the systems on their consoles.
func TestBoot(t *testing.T) {
	fixtures.Require(t, fixtures.Emulation)
	all := os.Getenv("IMGMUT_BOOT") == "all"
	l := newLab(t)
	key := filepath.Join(t.TempDir(), "key")
	fixtures.Program(t, "", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range bootCases {
		if !all && !tc.always {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			l := &lab{t: t, store: l.store}
			l.run(0, "apply", l.recipe(bootRecipe(t, tc, strings.TrimSpace(string(public)))))
			machines := map[string]bool{}
			for n, firmware := range tc.firmwares {
				if n > 0 && !all {
					break
				}
				t.Run(string(firmware), func(t *testing.T) {
					m := fixtures.StartMachine(t, filepath.Join(l.store, "images", tc.name+".raw"), firmware)
					m.Login("root", "proof")
					id := askBooted(t, m, tc)
					if machines[id] {
						t.Errorf("two machines of one image are both %s", id)
					}
					machines[id] = true
					if out := m.SSH("visitor", key, "id -un"); out != "visitor\n" {
						t.Errorf("ssh: %q", out)
					}
					m.Reboot()
					m.Login("root", "proof")
					if again := askBooted(t, m, tc); again != id {
						t.Errorf("machine %s is %s when it has started again", id, again)
					}
				})
			}
		})
	}
}

// patient has a system wait for its disk: in a machine that is emulated beside others that takes more than 90 seconds.
const patient = `  - write: {path: /etc/systemd/system.conf.d/patient.conf, content: "[Manager]\nDefaultDeviceTimeoutSec=15min\n"}`

// bootRecipe is that of a case: whoever has the key comes in as visitor, and root on the console.
func bootRecipe(t *testing.T, tc bootCase, public string) string {
	t.Helper()
	base := fixtures.Image(t, tc.layout)
	ssh := "  - packages: {install: [openssh-server], update: true}\n"
	containers := ""
	if strings.HasPrefix(tc.more, "bootc:") { // it has that already, and nobody could install it
		ssh, containers = "", fixtures.Containers(t, tc.layout)
	}
	return fmt.Sprintf(`version: 1
name: %s
base: %s
steps:
%s  - run: |
      useradd --create-home --shell /bin/sh visitor
      install -d -m 700 -o visitor -g visitor /home/visitor/.ssh
      echo '%s' > /home/visitor/.ssh/authorized_keys
      echo root:proof | chpasswd
  - write: {path: /etc/proof, content: "made by imgmut: %s\n"}
`+patient+`
%s%s`, tc.name, base, ssh, public, tc.name, tc.steps, strings.ReplaceAll(tc.more, "CONTAINERS", containers))
}

// askBooted asks the questions of booted, and those of the case. It gives the id of the machine.
func askBooted(t *testing.T, m *fixtures.Machine, tc bootCase) (id string) {
	t.Helper()
	out, status := m.Ask(booted)
	found := regexp.MustCompile(`made by imgmut: ` + tc.name + `\nmachine ([0-9a-f]{32})\n`).FindStringSubmatch(out)
	if status != 0 || found == nil {
		t.Fatalf("the booted system: status %d\n%s", status, out)
	}
	t.Logf("nothing failed, all is mounted, machine %s", found[1])
	if out, status := m.Ask("set -e\n" + tc.checks); status != 0 {
		t.Fatalf("the booted system, %s: status %d\n%s", tc.checks, status, out)
	}
	return found[1]
}
