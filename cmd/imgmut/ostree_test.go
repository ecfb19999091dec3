package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/imgmut/imgmut/fixtures"
)

// TestOstree runs testdata/ostree: systems that are deployments of ostree, on ext4 and XFS.
func TestOstree(t *testing.T) {
	runScripts(t, "testdata/ostree", []string{"bootc-old", "bootc-new", "bootc-xfs", "bare"})
}

// TestCommitLayouts makes a new deployment of each layout, by the ostree of this machine
// (2022.7, with a bwrap) and by that of Debian 13 (2025.2, without), of images whose own
// deployment the latter has made.
func TestCommitLayouts(t *testing.T) {
	l := newLab(t)
	tree := fixtures.HostTree(t)
	other := []string{"unshare", "--mount", "sh", "-euc", enter, "sh", tree, os.TempDir(), filepath.Dir(fixtures.Image(t, "bare"))}
	for _, layout := range []string{"bootc-old", "bootc-new", "bootc-xfs"} {
		for host, prefix := range map[string][]string{"own": nil, "257": other} {
			t.Run(layout+" "+host, func(t *testing.T) {
				l := &lab{t: t, store: l.store, prefix: prefix}
				name := layout + "-" + host
				recipe := l.recipe("version: 1\nname: " + name + "\nbase: " + fixtures.Image(t, layout) + `
ostree: {mode: commit}
identity: {filesystems: true}
steps:
  - run: useradd joe; echo made > /usr/bin/made; rm -r /usr/share/doc/dpkg
  - run: id joe; echo more >> /usr/bin/made
verify:
  - file: /usr/bin/made
`)
				l.run(0, "apply", "--no-cache", recipe)
				l.run(0, "verify", name)
				image := filepath.Join(l.store, "images", name+".raw")
				got := fixtures.Program(t, "", "unshare", "--mount", "sh", "-euc", inside, "sh", image, `
cat $d/usr/bin/made; grep -c ^joe: $d/etc/passwd; [ ! -e $d/usr/share/doc/dpkg ]; [ -e $o/usr/share/doc/dpkg ]; [ ! -e $o/usr/bin/made ]
ostree fsck --quiet --repo=ostree/repo >/dev/null
[ ! -e ostree/imgmut ]
root=$(blkid -p -o value -s UUID "${disk}p4") boot=$(blkid -p -o value -s UUID "${disk}p3") esp=$(blkid -p -o value -s UUID "${disk}p2")
for e in boot/loader/entries/*; do grep -q "root=UUID=$root .*boot=UUID=$boot " $e; done
for at in $d/etc/fstab $o/etc/fstab; do
	grep -q "^UUID=$root / " $at; grep -q "^UUID=$boot /boot " $at; grep -q "^UUID=$esp /boot/efi " $at
done
ls boot/loader/entries | wc -l`)
				if got != "made\nmore\n1\n2\n" {
					t.Errorf("the image has %q", got)
				}
				l.run(0, "rm", name)
				l.wantClean()
			})
		}
	}
}

// inside runs a script in the volume of an image with deployments, as programs that know
// nothing of imgmut see it. $d is the directory of the deployment that starts, $o that of
// the rollback.
const inside = `
disk=$(losetup --find --show --partscan "$1")
trap 'losetup --detach "$disk"' EXIT
partx --add "$disk" 2>/dev/null || true
options=rw
[ "$(blkid -p -o value -s TYPE "${disk}p4")" != xfs ] || options=rw,nouuid
mount -o "$options" "${disk}p4" /mnt
mount "${disk}p3" /mnt/boot
cd /mnt
d= o=
for e in $(ls -r boot/loader/entries); do
	link=$(sed -n 's/^options.* ostree=\([^ ]*\).*/\1/p' "boot/loader/entries/$e")
	at=$(readlink -f ".$link")
	if [ -z "$d" ]; then d=${at#/mnt/}; elif [ -z "$o" ]; then o=${at#/mnt/}; fi
done
# state DIR: all that is in a directory, to be compared.
state() { (cd "$1"; find . -printf '%P %y %m %U:%G %l\n' | sort; find . -type f -print0 | sort -z | xargs -0r sha256sum) | sha256sum; }
eval "$2"
cd /
umount /mnt/boot /mnt`

// insideCmd: inside IMAGE SCRIPT runs a script in the volume with the deployments of an
// image, which it can change.
func insideCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: inside IMAGE SCRIPT")
	}
	ts.Check(ts.Exec("unshare", "--mount", "sh", "-euc", inside, "sh", ts.MkAbs(args[0]), args[1]))
}

// lookCmd: look IMAGE SCRIPT is inside for a fork of the image, which is thrown away.
func lookCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: look IMAGE SCRIPT")
	}
	forkCmd(ts, false, []string{args[0], "looked.raw"})
	insideCmd(ts, false, []string{"looked.raw", args[1]})
	ts.Check(os.Remove(ts.MkAbs("looked.raw")))
}
