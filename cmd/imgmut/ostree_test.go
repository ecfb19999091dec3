package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestOstree runs testdata/ostree: systems that are deployments of ostree, on ext4 and XFS.
func TestOstree(t *testing.T) {
	runScripts(t, "testdata/ostree", []string{"bootc-old", "bootc-new", "bootc-xfs", "bare"})
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
