package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
)

// enter runs a command on a machine whose root filesystem is an overlay over
// the tree $1. It sees this machine's devices, cgroups and the directories $2
// and $3. It is pivot_root and not chroot, in which the kernel makes no user
// namespaces.
const enter = `
root=$(mktemp -d)
mount -t tmpfs tmpfs "$root"
mkdir "$root/upper" "$root/work" "$root/merged"
mount -t overlay -o "lowerdir=$1,upperdir=$root/upper,workdir=$root/work" overlay "$root/merged"
cd "$root/merged"
for dir in /proc /sys /dev "$2" "$3"; do
	mkdir -p ".$dir"
	mount --rbind "$dir" ".$dir"
done
mount -t tmpfs tmpfs run
cp --remove-destination /etc/resolv.conf etc/resolv.conf
mkdir old
pivot_root . old
umount -l /old
shift 3
exec "$@"
`

// TestOtherHost runs imgmut on Debian 13: systemd 257 and dbus-broker, with the
// image that is mounted in the most complicated way and the filesystem that
// systemd treats most specially.
func TestOtherHost(t *testing.T) {
	l := newLab(t)
	tree := fixtures.HostTree(t)
	bib, xfs := fixtures.Image(t, "bib"), fixtures.Image(t, "xfs")
	l.prefix = []string{"unshare", "--mount", "sh", "-euc", enter, "sh", tree, os.TempDir(), filepath.Dir(bib)}

	out, _ := l.run(0, "doctor")
	for _, want := range []string{"systemd-nspawn, version 257", "/usr/bin/dbus-broker-launch"} {
		if !strings.Contains(out, want) {
			t.Errorf("doctor does not find %s:\n%s", want, out)
		}
	}
	for name, image := range map[string]string{"bib": bib, "xfs": xfs} {
		recipe := l.recipe("version: 1\nname: " + name + "\nbase: " + image + `
steps:
  - write: {path: /boot/from-imgmut, content: x}
  - packages: {install: [hello], update: true}
  - run: hello
verify:
  - package: hello
  - file: /boot/from-imgmut
`)
		_, stderr := l.run(0, "--log-level", "info", "apply", recipe)
		if !strings.Contains(stderr, "mode=private systemd=257") {
			t.Errorf("%s: not the host that was meant:\n%s", name, stderr)
		}
		l.run(0, "verify", name)
		l.wantClean()
	}
}
