package main

import (
	"path/filepath"
	"strconv"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/machined"
)

// inContainer starts the image $1 as systemd-nspawn itself does, in a unit, and asks the system in it by the script $2.
// It is on a host that has what only that needs: udevd, without rules, which would be about the machine's own devices.
const inContainer = `
for dir in /usr/lib/udev/rules.d /usr/local/lib/udev/rules.d /etc/udev/rules.d; do
	[ ! -d $dir ] || mount --bind /run/imgmut/empty $dir
done
udevd=/usr/lib/systemd/systemd-udevd; [ -x $udevd ] || udevd=/lib/systemd/systemd-udevd
setsid $udevd </dev/null >/dev/null 2>&1 &
until [ -e /run/udev/control ]; do sleep 0.01; done
export SYSTEMD_LOOP_DIRECT_IO=0
systemd-run --quiet --unit=booted --property=Delegate=yes --property=KillMode=mixed --setenv=SYSTEMD_LOOP_DIRECT_IO=0 -- \
	systemd-nspawn --quiet --keep-unit --settings=no --boot --machine=booted --image="$1" --console=pipe
trap 'machinectl terminate booted; systemctl stop booted.service' EXIT
for i in $(seq 600); do
	leader=$(machinectl show booted --property=Leader --value 2>/dev/null) && [ -n "$leader" ] &&
		nsenter --target "$leader" --all -- test -S /run/systemd/private && break
	systemctl is-active --quiet booted.service || exit 1
	sleep 0.1
done
nsenter --target "$leader" --all -- /bin/sh -c "$2"`

// What a system in a container is asked. Units may fail there as they do in the base: systemd-remount-fs does, for the
// volume that fstab has for / is not to be found.
const (
	failedUnits = "systemctl is-system-running --wait >/dev/null; systemctl --failed --no-legend --plain | cut -d ' ' -f 1"
	whatItIs    = "systemd-detect-virt --container; cat /etc/proof; grep -cE '^[0-9a-f]{32}$' /etc/machine-id"
)

// TestBootedContainer starts an image under systemd-nspawn: whoever has no virtual machine starts it so.
func TestBootedContainer(t *testing.T) {
	l := newLab(t)
	base := fixtures.Image(t, "debian-cloud")
	l.run(0, "apply", l.recipe("version: 1\nname: booted\nbase: "+base+
		"\nsteps:\n  - write: {path: /etc/proof, content: \"made by imgmut\\n\"}\n"))
	failed := inAContainer(t, l, base, failedUnits)
	out := inAContainer(t, l, filepath.Join(l.store, "images", "booted.raw"), failedUnits+"; "+whatItIs)
	if want := failed + "systemd-nspawn\nmade by imgmut\n1\n"; out != want {
		t.Errorf("the booted system says %q, want %q", out, want)
	}
}

// inAContainer starts an image and asks the system in it. The image does not change.
func inAContainer(t *testing.T, l *lab, image, script string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "booted.raw")
	fixtures.Clone(t, image, file)
	fixtures.Program(t, "", "sgdisk", "--attributes=15:set:1", file) // of the ESP: this kernel may have no vfat
	exe := l.command().Path
	h, err := machined.Open(t.Context(), machined.Options{
		Mode: machined.Private, Init: []string{exe, "private-host"}, Paths: []string{filepath.Dir(exe), filepath.Dir(file)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	return fixtures.Program(t, "", "nsenter", "--target", strconv.Itoa(h.PID()), "--all", "--",
		"/bin/sh", "-euc", inContainer, "sh", file, script)
}
