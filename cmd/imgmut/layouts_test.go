package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
)

// made is a file that a step makes, by its path in the booted system, and where that is
// on the disk: in a partition, with mount options, by a path there.
type made struct {
	path      string
	partition int
	options   string
	within    string // a pattern
}

// realLayouts are disks laid out as real ones are, and where files are in them. What the
// image does not let anybody write to is in sealed.
var realLayouts = []struct {
	name   string
	files  []made
	sealed string
}{
	{"debian-cloud", []made{{"/etc/made", 1, "", "etc/made"}, {"/boot/made", 1, "", "boot/made"}}, ""},
	{"ubuntu-cloud", []made{{"/etc/made", 1, "", "etc/made"}, {"/boot/made", 16, "", "made"}}, ""},
	{"fedora", []made{
		{"/etc/made", 4, "subvol=root", "etc/made"}, {"/home/made", 4, "subvol=home", "made"},
		{"/var/made", 4, "subvol=var", "made"}, {"/boot/made", 3, "", "made"},
	}, ""},
	{"suse", []made{
		{"/etc/made", 3, "subvol=@/.snapshots/1/snapshot", "etc/made"}, {"/usr/local/made", 3, "subvol=@/usr/local", "made"},
		{"/var/made", 3, "subvol=@/var", "made"}, {"/boot/grub2/i386-pc/made", 3, "subvol=@/boot/grub2/i386-pc", "made"},
	}, ""},
	{"rhel", []made{{"/etc/made", 4, "", "etc/made"}, {"/boot/made", 3, "", "made"}}, ""},
	{"bootc-old", []made{
		{"/etc/made", 4, "", "ostree/deploy/debian/deploy/*.0/etc/made"}, {"/var/made", 4, "", "ostree/deploy/debian/var/made"},
		{"/boot/made", 3, "", "made"},
	}, "/usr/made"},
	{"bootc-new", []made{
		{"/etc/made", 4, "", "ostree/deploy/debian/deploy/*.0/etc/made"}, {"/home/made", 4, "", "ostree/deploy/debian/var/home/made"},
	}, "/sysroot/made"},
	{"bootc-xfs", []made{
		{"/etc/made", 4, "", "ostree/deploy/debian/deploy/*.0/etc/made"}, {"/var/made", 4, "", "ostree/deploy/debian/var/made"},
	}, "/usr/made"},
	{"repart", []made{{"/etc/made", 4, "", "etc/made"}, {"/var/made", 4, "", "var/made"}}, "/usr/made"},
	{"mbr-boot", []made{{"/etc/made", 2, "", "etc/made"}, {"/boot/made", 1, "", "made"}}, ""},
	{"mbr-logical", []made{{"/etc/made", 5, "", "etc/made"}, {"/boot/made", 1, "", "made"}}, ""},
	{"bare", []made{{"/etc/made", 0, "", "etc/made"}}, ""},
	{"4k", []made{{"/etc/made", 2, "", "etc/made"}}, ""},
	{"raspberry", []made{{"/etc/made", 2, "", "etc/made"}}, "/boot/firmware/made"},
	{"live-ext4", []made{{"/etc/made", 2, "", "etc/made"}}, ""},
	{"live-xfs", []made{{"/etc/made", 2, "", "etc/made"}}, ""},
	{"live-btrfs", []made{{"/etc/made", 2, "", "etc/made"}}, ""},
}

// TestLayouts builds an image of each, on the systemd of this machine and on that of
// Debian 13: a step's files are where the booted system has them, and the image is
// whole.
func TestLayouts(t *testing.T) {
	l := newLab(t)
	tree := fixtures.HostTree(t)
	other := []string{"unshare", "--mount", "sh", "-euc", enter, "sh", tree, os.TempDir(), filepath.Dir(fixtures.Image(t, "bare"))}
	for _, tc := range realLayouts {
		base := fixtures.Image(t, tc.name)
		for host, prefix := range map[string][]string{"own": nil, "257": other} {
			t.Run(tc.name+" "+host, func(t *testing.T) {
				l := &lab{t: t, store: l.store, prefix: prefix}
				name := tc.name + "-" + host
				l.run(0, "apply", "--no-cache", l.recipe(layoutRecipe(name, base, tc.files, tc.sealed)))
				l.run(0, "verify", name)
				for _, f := range tc.files {
					lookInto(t, filepath.Join(l.store, "images", name+".raw"), f)
				}
				l.run(0, "rm", name)
				l.wantClean()
			})
		}
	}
}

// TestGrownLayouts gives each a larger disk: its last partition has the room, by the word
// of programs that know nothing of imgmut, and files are where the booted system has
// them. Where swap lies behind root it is refused, and nothing is made.
func TestGrownLayouts(t *testing.T) {
	l := newLab(t)
	for _, tc := range realLayouts {
		t.Run(tc.name, func(t *testing.T) {
			l := &lab{t: t, store: l.store}
			base := fixtures.Image(t, tc.name)
			recipe := l.recipe(layoutRecipe(tc.name, base, tc.files, tc.sealed) + "disk: {size: +3G}\n")
			if tc.name == "mbr-logical" {
				l.run(exitRecipe, "apply", recipe)
				return
			}
			l.run(0, "apply", recipe)
			l.run(0, "verify", tc.name)
			image := filepath.Join(l.store, "images", tc.name+".raw")
			for _, f := range tc.files {
				lookInto(t, image, f)
			}
			fillsTheDisk(t, image)
			l.run(0, "rm", tc.name)
			l.wantClean()
		})
	}
}

// fillsTheDisk wants the table of an image, and its last filesystem, to reach to its end
// but for two MiB, as blkid, sfdisk and df see them.
func fillsTheDisk(t *testing.T, image string) {
	t.Helper()
	const script = `
sector=512
[ "$(dd if="$1" bs=4096 skip=1 count=1 status=none | head -c 8 | tr -d '\0')" != "EFI PART" ] || sector=4096
disk=$(losetup --find --show --read-only --partscan --sector-size $sector "$1")
trap 'losetup --detach "$disk"' EXIT
node=$disk start=0 size=$(($(blockdev --getsz "$disk")))
if [ -n "$(blkid -p -o value -s PTTYPE "$disk")" ]; then
	partx --add "$disk" 2>/dev/null || true
	sfdisk --verify "$disk" | grep -q 'No errors detected'
	[ "$(blkid -p -o value -s PTTYPE "$disk")" != gpt ] || sgdisk -v "$disk" | grep -q 'No problems found'
	set -- $(partx --raw --noheadings --output START,SECTORS,NR "$disk" | sort -n | tail -n 1) "$2"
	start=$1 size=$2 node=${disk}p$3
	shift 2
fi
[ $(($(blockdev --getsz "$disk") - start - size)) -le 4096 ]
options=ro
[ "$(blkid -p -o value -s TYPE "$node")" != xfs ] || options=ro,nouuid
mount -o "$options" "$node" "$2"
[ $(($(df -k --output=size "$2" | tail -n 1) * 2)) -gt $((size / 100 * 90)) ]
umount "$2"`
	fixtures.Program(t, "", "unshare", "--mount", "sh", "-euc", script, "sh", image, t.TempDir())
}

// layoutRecipe makes files by a command, and the first of them by a kind of its own.
func layoutRecipe(name, base string, files []made, sealed string) string {
	var run, verify strings.Builder
	for _, f := range files[1:] {
		fmt.Fprintf(&run, "      echo %s > %s\n", f.path, f.path)
		fmt.Fprintf(&verify, "  - file: %s\n", f.path)
	}
	if sealed != "" {
		fmt.Fprintf(&run, "      ! echo x > %s\n", sealed)
	}
	return fmt.Sprintf("version: 1\nname: %s\nbase: %s\nsteps:\n  - write: {path: %s, content: \"%s\\n\"}\n  - run: |\n      true\n%s"+
		"verify:\n  - file: %s\n%s", name, base, files[0].path, files[0].path, run.String(), files[0].path, verify.String())
}

// lookInto reads a file of an image as no part of imgmut does: by the mount program, on
// a loop device of losetup and partx, where nobody else sees it.
func lookInto(t *testing.T, image string, f made) {
	t.Helper()
	const script = `
sector=512
[ "$(dd if="$1" bs=4096 skip=1 count=1 status=none | head -c 8 | tr -d '\0')" != "EFI PART" ] || sector=4096
disk=$(losetup --find --show --read-only --partscan --sector-size $sector "$1")
trap 'losetup --detach "$disk"' EXIT
node=$disk
if [ "$2" != 0 ]; then partx --add "$disk" 2>/dev/null || true; node=${disk}p$2; fi
options=ro
[ "$(blkid -p -o value -s TYPE "$node")" != xfs ] || options=ro,nouuid
mount -o "$options${3:+,$3}" "$node" "$4"
cat "$4"/$5
umount "$4"`
	got := fixtures.Program(t, "", "unshare", "--mount", "sh", "-euc", script, "sh", image, fmt.Sprint(f.partition), f.options,
		t.TempDir(), f.within)
	if got != f.path+"\n" {
		t.Errorf("%s is %q in partition %d (%s)", f.within, got, f.partition, f.options)
	}
}
