package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/fixtures"
)

// hostTime is how long an emulated machine may take for the work of a real one.
const hostTime = 40 * time.Minute

// bootedHosts are machines that started with systemd, udev, vfat and device-mapper, where this machine need not have
// any of them.
var bootedHosts = []struct {
	name, layout string
	firmware     fixtures.Firmware
	systemd      string
}{
	{"debian-12", "debian-cloud", fixtures.BIOS, "252"},
	{"debian-13", "debian-13", fixtures.UEFI, "257"},
}

// onHost makes an image as the demo does, on the host itself.
const onHost = `set -e
cd /srv/imgmut
imgmut doctor
imgmut --host system import debian-12.raw debian-12
imgmut --host system --log-level info apply web.yaml 2>log || { cat log; exit 1; }
cat log
grep -q 'mode=system systemd=%s' log
machinectl list-images --no-legend | grep -w web
imgmut verify web
# What steps write to the ESP, which this kernel mounts, is in the image, with the image's names: in a layer that is
# gone on from, and in the last.
for last in one two; do
	sed "s/LAST/$last/" esp.yaml >now.yaml
	imgmut --host system apply now.yaml
	image=/var/lib/imgmut/pool/images/esp.raw
	mtype -i $image@@1M ::/loader/entries/debian.conf >entry
	grep -x '# step 1' entry
	grep -x "# $last" entry
	grep "root=PARTUUID=$(sfdisk --part-uuid $image 2 | tr A-Z a-z)" entry
done
`

// afterwards asks the host what is left: no unit that failed, now or meanwhile; no machine, no mount and no loop device
// but those of the store.
const afterwards = `set -e
test -z "$(systemctl --failed --no-legend)" || { systemctl --failed --no-legend; exit 1; }
if journalctl --boot --output=cat | grep -E 'imgmut.*(Failed with result|entered failed state)'; then exit 1; fi
test -z "$(machinectl list --no-legend)" || { machinectl list; exit 1; }
test -z "$(systemctl list-units --all --no-legend 'imgmut*')" || { systemctl list-units --all 'imgmut*'; exit 1; }
if losetup --list --noheadings --output BACK-FILE | grep -v pool.xfs; then exit 1; fi
if findmnt --raw --noheadings --output TARGET | grep imgmut | grep -v '/pool$'; then exit 1; fi
# What udevd had to say: nothing about what imgmut did.
journalctl --boot --output=cat --identifier=systemd-udevd --identifier='(udev-worker)' | sort | uniq -c
if journalctl --boot --output=cat --identifier=systemd-udevd | grep 'invalid length'; then exit 1; fi
`

// TestBootedHost runs the demo on machines that have really booted. It takes half an hour, so only if IMGMUT_BOOT is host.
func TestBootedHost(t *testing.T) {
	if os.Getenv("IMGMUT_BOOT") != "host" {
		t.Skip("it takes half an hour: just host-test")
	}
	l := newLab(t)
	for _, tc := range bootedHosts {
		t.Run(tc.name, func(t *testing.T) {
			l := &lab{t: t, store: l.store}
			recipe := l.recipe(hostRecipe(tc.name, fixtures.Image(t, tc.layout)))
			dir := filepath.Dir(recipe)
			fixtures.Program(t, "", "go", "build", "-trimpath", "-o", filepath.Join(dir, "imgmut"), ".")
			fixtures.Program(t, "", "cp", "--sparse=always", fixtures.Image(t, "debian-12"), filepath.Join(dir, "debian-12.raw"))
			fixtures.Program(t, "", "cp", "-R", "../../recipes/examples/web.yaml", "../../recipes/examples/site", dir)
			l.run(0, "apply", recipe)
			m := fixtures.StartMachine(t, filepath.Join(l.store, "images", tc.name+".raw"), tc.firmware)
			m.Login("root", "proof")
			for _, script := range []string{booted, fmt.Sprintf(onHost, tc.systemd), afterwards} {
				out, status := m.AskWithin(hostTime, script)
				if status != 0 {
					t.Fatalf("status %d\n%s\n%s", status, script, out)
				}
				t.Logf("%s", strings.TrimSpace(out))
			}
		})
	}
}

// hostRecipe is that of a machine that has imgmut and what it needs.
func hostRecipe(name, base string) string {
	return fmt.Sprintf(`version: 1
name: %s
base: %s
disk: {size: 8G}
steps:
  - packages:
      update: true
      install: [systemd-container, dbus, xfsprogs, dosfstools, mtools, fdisk, e2fsprogs]
  - run: echo root:proof | chpasswd
  - write: {path: /etc/proof, content: "made by imgmut: %s\n"}
`+patient+`
  - copy: {from: imgmut, to: /usr/local/bin/imgmut}
  - copy: {from: debian-12.raw, to: /srv/imgmut/debian-12.raw}
  - copy: {from: site/, to: /srv/imgmut/site}
  - copy: {from: web.yaml, to: /srv/imgmut/web.yaml}
  - run: |
      echo 'register: {machined: true}' >> /srv/imgmut/web.yaml
  - write:
      path: /srv/imgmut/esp.yaml
      content: |
        version: 1
        name: esp
        base: debian-12
        steps:
          - run: "echo '# step 1' >>/boot/efi/loader/entries/debian.conf"
          - run: "echo '# LAST' >>/boot/efi/loader/entries/debian.conf"
`, name, base, name)
}
