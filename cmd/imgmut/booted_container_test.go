package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/machined"
)

// inContainer starts the image $1 as systemd-nspawn itself does, in a unit, with options $3, and asks the system in it by the
// script $2. If $4 is a partition, that is mounted on /run/booted.
// It is on a host that has what only that needs: udevd, without rules, which would be about the machine's own devices.
const inContainer = `
for dir in /usr/lib/udev/rules.d /usr/local/lib/udev/rules.d /etc/udev/rules.d; do
	[ ! -d $dir ] || mount --bind /run/imgmut/empty $dir
done
udevd=/usr/lib/systemd/systemd-udevd; [ -x $udevd ] || udevd=/lib/systemd/systemd-udevd
setsid $udevd </dev/null >/dev/null 2>&1 &
until [ -e /run/udev/control ]; do sleep 0.01; done
export SYSTEMD_LOOP_DIRECT_IO=0
if [ -n "$4" ]; then
	disk=$(losetup --find --show --partscan "$1")
	partx --add "$disk" 2>/dev/null || true
	mkdir /run/booted
	mount "${disk}p$4" /run/booted
	losetup --detach "$disk" # which waits for the mount
fi
systemd-run --quiet --unit=booted --property=Delegate=yes --property=KillMode=mixed \
	--property=StandardOutput=file:"$1.log" --property=StandardError=file:"$1.log" \
	--setenv=SYSTEMD_LOOP_DIRECT_IO=0 -- \
	systemd-nspawn --quiet --keep-unit --settings=no --boot --machine=booted --console=pipe $3
trap 'machinectl terminate booted; systemctl stop booted.service' EXIT
for i in $(seq 600); do
	leader=$(machinectl show booted --property=Leader --value 2>/dev/null) && [ -n "$leader" ] &&
		nsenter --target "$leader" --all -- test -S /run/systemd/private && break
	systemctl is-active --quiet booted.service || { cat "$1.log"; exit 1; }
	sleep 0.1
done
nsenter --target "$leader" --all -- /bin/sh -c "$2"`

// What a system in a container is asked. Units may fail there as they do in the base: systemd-remount-fs does, for the
// volume that fstab has for / is not to be found.
const (
	failedUnits = "systemctl is-system-running --wait >/dev/null; systemctl --failed --no-legend --plain | cut -d ' ' -f 1"
	whatItIs    = "systemd-detect-virt --container; cat /etc/proof; grep -cE '^[0-9a-f]{32}$' /etc/machine-id"
)

// TestBootedContainer starts images under systemd-nspawn: whoever has no virtual machine starts them so. A deployment of
// ostree is not at the root of an image, so it is started from a directory (--pivot-root= of systemd-nspawn(1)).
func TestBootedContainer(t *testing.T) {
	for _, tc := range []struct {
		layout, more string
		esp          int
	}{
		{"debian-cloud", "", 15},
		{"bootc-boot", "ostree: {mode: commit}\n", 2},
	} {
		t.Run(tc.layout, func(t *testing.T) {
			l := newLab(t)
			base := fixtures.Image(t, tc.layout)
			l.run(0, "apply", l.recipe("version: 1\nname: booted\nbase: "+base+"\n"+tc.more+
				"steps:\n  - write: {path: /etc/proof, content: \"made by imgmut\\n\"}\n"))
			failed := inAContainer(t, l, base, tc.esp, failedUnits)
			out := inAContainer(t, l, filepath.Join(l.store, "images", "booted.raw"), tc.esp, failedUnits+"; "+whatItIs)
			if want := failed + "systemd-nspawn\nmade by imgmut\n1\n"; out != want {
				t.Errorf("the booted system says %q, want %q", out, want)
			}
		})
	}
}

// inAContainer starts an image and asks the system in it. The image does not change.
func inAContainer(t *testing.T, l *lab, image string, esp int, script string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "booted.raw")
	fixtures.Clone(t, image, file)
	fixtures.Program(t, "", "sgdisk", fmt.Sprintf("--attributes=%d:set:1", esp), file) // this kernel may have no vfat
	options, partition := "--image="+file, ""
	if deployment := defaultDeployment(t, l, file); deployment != "" {
		options, partition = "--directory=/run/booted --pivot-root="+deployment+":/sysroot", "4"
	}
	exe := l.command().Path
	h, err := machined.Open(t.Context(), machined.Options{
		Mode: machined.Private, Init: []string{exe, "private-host"}, Paths: []string{filepath.Dir(exe), filepath.Dir(file)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	return fixtures.Program(t, "", "nsenter", "--target", strconv.Itoa(h.PID()), "--all", "--",
		"/bin/sh", "-euc", inContainer, "sh", file, script, options, partition)
}

// defaultDeployment is the directory of the one that starts, "" if the image has none.
func defaultDeployment(t *testing.T, l *lab, image string) string {
	t.Helper()
	out, _ := l.run(0, "doctor", image)
	return regexp.MustCompile(`/ostree/deploy/[^/]+/deploy/[0-9a-f]{64}\.[0-9]+|$`).FindString(out)
}
