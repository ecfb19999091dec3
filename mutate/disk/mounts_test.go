package disk

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/gpt"
)

// told is what is known of mounts, a word each: "/home=2", with what covers a place
// or is bound there, and with a ? where somebody has to ask for it.
func told(mounts []Mounted) string {
	var words []string
	for _, m := range mounts {
		word := fmt.Sprintf("%s=%d", m.Mountpoint, m.Slot)
		switch {
		case m.Bind != "":
			word = m.Mountpoint + "=" + m.Bind
			if m.Cover != "" {
				word += "!"
			}
		case m.Cover != "":
			word = m.Mountpoint + "!" + strings.Fields(m.Cover)[1]
		}
		if len(m.Options) > 0 {
			word += "(" + strings.Join(m.Options, ",") + ")"
		}
		if m.ByHand {
			word += "?"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// rolesOf is what volumes are for, a word each: "2:home".
func rolesOf(l *Layout) string {
	var words []string
	for _, v := range l.Volumes {
		if v.Role != "" {
			words = append(words, fmt.Sprintf("%d:%s", v.Slot, v.Role))
		}
	}
	return strings.Join(words, " ")
}

// findMounts is what a system mounts by the files of a tree.
func findMounts(l *Layout, tree fs.FS, k kernelLine, known ...Mounted) ([]Mounted, error) {
	said, err := saidMounts(tree, k)
	if err != nil {
		return nil, err
	}
	return l.findMounts(tree, said, k, known...)
}

// says is a command line.
func says(line string) kernelLine { return parseKernelLine(line) }

// threeVolumes have the labels a, which is root, b and c.
func threeVolumes() *Layout {
	return &Layout{Table: GPT, Volumes: []Volume{
		{Slot: 1, Label: "a", FS: "ext4"}, {Slot: 2, Label: "b", FS: "ext4"}, {Slot: 3, Label: "c", FS: "ext4"},
	}}
}

var rootOne = Mounted{Mountpoint: "/", Slot: 1}

// TestMountsByFstab: what the system mounts where, and what each volume is for.
func TestMountsByFstab(t *testing.T) {
	for _, tc := range []struct{ name, fstab, want, roles string }{
		{"none", "", "/=1", "1:root"},
		{"/boot", "LABEL=b /boot ext4", "/=1 /boot=2", "1:root 2:boot"},
		{"/usr", "LABEL=b /usr ext4", "/=1 /usr=2", "1:root 2:usr"},
		{"/home", "LABEL=b /home ext4", "/=1 /home=2", "1:root 2:home"},
		{"/srv", "LABEL=b /srv ext4", "/=1 /srv=2", "1:root 2:srv"},
		{"/var", "LABEL=b /var ext4", "/=1 /var=2", "1:root 2:var"},
		{"/efi", "LABEL=b /efi vfat", "/=1 /efi=2", "1:root 2:esp"},
		{"/boot/efi", "LABEL=b /boot/efi vfat", "/=1 /boot/efi=2", "1:root 2:esp"},
		{"another place", "LABEL=b /opt ext4", "/=1 /opt=2", "1:root"},
		{"what lies in another comes after it", "LABEL=c /var/log ext4\nLABEL=b /var ext4", "/=1 /var=2 /var/log=3", "1:root 2:var"},
		{"root", "LABEL=a / ext4", "/=1", "1:root"},
		{"root and another", "LABEL=a / ext4\nLABEL=b /home ext4", "/=1 /home=2", "1:root 2:home"},
		{"another volume as root", "LABEL=b / ext4", "/=1", "1:root"},
		{"a part of root", "LABEL=a /home btrfs subvol=home,noatime,compress=zstd:1", "/=1 /home=1(subvol=home,compress=zstd:1)", "1:root"},
		{"a volume in two places", "LABEL=b /home ext4\nLABEL=b /mnt ext4", "/=1 /home=2 /mnt=2", "1:root 2:home"},
		{"and the place with a role second", "LABEL=b /mnt ext4\nLABEL=b /home ext4", "/=1 /home=2 /mnt=2", "1:root 2:home"},
		{"two volumes in one place", "LABEL=b /home ext4\nLABEL=c /home ext4", "/=1 /home=2", "1:root 2:home"},
		{"swap", "LABEL=b none swap", "/=1", "1:root"},
		{"no absolute place", "LABEL=b home ext4", "/=1", "1:root"},

		// What is not of this image covers what the image has there.
		{"memory", "tmpfs /var/log tmpfs", "/=1 /var/log!tmpfs", "1:root"},
		{"the network", "server:/x /home nfs4 _netdev", "/=1 /home!network", "1:root"},
		{"another disk", "UUID=0000 /data xfs nofail", "/=1 /data!disk", "1:root"},
		{"the second disk", "/dev/vdb3 /data ext4", "/=1 /data!disk", "1:root"},
		{"the first disk, by its path", "/dev/disk/by-path/pci-1-part3 /data ext4", "/=1 /data!disk", "1:root"},
		{"this disk", "/dev/vda3 /data ext4", "/=1 /data=3", "1:root"},
		{"of a kind that has partitions", "/dev/nvme0n1p2 /data ext4", "/=1 /data=2", "1:root"},
		{"a second one of that kind", "/dev/nvme1n1p2 /data ext4", "/=1 /data!disk", "1:root"},
		{"another name space of it", "/dev/nvme0n2p2 /data ext4", "/=1 /data!disk", "1:root"},

		// What is not mounted at the start has no role, but for /boot: to that
		// packages write, and its owner mounts it for them.
		{"not at the start", "LABEL=b /home ext4 noauto", "/=1 /home=2?", "1:root"},
		{"at the first use", "LABEL=b /home ext4 noauto,x-systemd.automount", "/=1 /home=2", "1:root 2:home"},
		{"/boot not at the start", "LABEL=b /boot ext4 noauto", "/=1 /boot=2?", "1:root 2:boot"},
		{"/boot/efi not at the start", "LABEL=b /boot/efi vfat noauto", "/=1 /boot/efi=2?", "1:root 2:esp"},

		// A directory in another place.
		{"a bind mount", "/srv/www /var/www none bind", "/=1 /var/www=/srv/www", "1:root"},
		{"a bind mount of all below", "/srv /var none rbind,ro", "/=1 /var=/srv", "1:root"},
		{"a bind mount of a volume that is deeper", "LABEL=b /mnt/data ext4\n/mnt/data/home /home none bind",
			"/=1 /mnt/data=2 /home=/mnt/data/home", "1:root"},
		{"and of that again", "/home/a /a none bind\nLABEL=b /mnt/data ext4\n/mnt/data/home /home none bind",
			"/=1 /mnt/data=2 /home=/mnt/data/home /a=/home/a", "1:root"},
		{"a circle", "/b /a none bind\n/a /b none bind", "/=1 /b=/a /a=/b", "1:root"},
		{"a bind mount of what another mount hides", "tmpfs /mnt tmpfs\n/mnt/x /home none bind",
			"/=1 /mnt!tmpfs /home=/mnt/x!", "1:root"},
		{"a bind mount of what is made anew", "/run/x /home none bind", "/=1 /home=/run/x!", "1:root"},
		{"a bind mount not at the start", "/srv/www /var/www none bind,noauto", "/=1 /var/www=/srv/www?", "1:root"},
	} {
		l := threeVolumes()
		mounts, err := findMounts(l, files(map[string]string{
			"etc/fstab": tc.fstab, "usr/lib/systemd/system/local-fs.target": "[Unit]", "usr/lib/systemd/system/remote-fs.target": "[Unit]",
		}), says(""), rootOne)
		if got := told(mounts); got != tc.want || err != nil {
			t.Errorf("%s: %s, %v; want %s", tc.name, got, err, tc.want)
		}
		l.Mounts = mounts
		l.giveRoles()
		if got := rolesOf(l); got != tc.roles {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.roles)
		}
	}
}

// TestWhoSaysSo: what is told of a mount names the line that says so, of root as well if
// it is fstab by which root is mounted so.
func TestWhoSaysSo(t *testing.T) {
	for from, want := range map[string]string{
		"/etc/fstab": "/etc/fstab:2 /etc/fstab:1 /etc/fstab:3", "its files": "its files /etc/fstab:1 /etc/fstab:3",
	} {
		root := rootOne
		root.From = from
		mounts, err := findMounts(threeVolumes(), files(map[string]string{
			"etc/fstab": "LABEL=b /home ext4\nLABEL=a / ext4\nLABEL=c /srv ext4\n", "usr/lib/systemd/system/local-fs.target": "[Unit]",
		}), says(""), root)
		var says []string
		for _, m := range mounts {
			says = append(says, m.From)
		}
		if got := strings.Join(says, " "); got != want || err != nil {
			t.Errorf("root is found by %s: %s, %v; want %s", from, got, err, want)
		}
	}
}

// TestUnitThatMountsSwap: swap is mounted nowhere, whatever a unit asks for.
func TestUnitThatMountsSwap(t *testing.T) {
	const units = "usr/lib/systemd/system/"
	mounts, err := findMounts(threeVolumes(), files(map[string]string{
		units + "local-fs.target": "[Unit]\nWants=mnt.mount srv.mount\n",
		units + "mnt.mount":       "[Mount]\nWhat=LABEL=b\nWhere=/mnt\nType=swap\n",
		units + "srv.mount":       "[Mount]\nWhat=LABEL=c\nWhere=/srv\nType=ext4\n",
	}), says(""), rootOne)
	if got := told(mounts); got != "/=1 /srv=3" || err != nil {
		t.Errorf("%s, %v", got, err)
	}
}

// TestMountsByTheKernel: the kernel's command line has mounts of its own, and takes others away.
func TestMountsByTheKernel(t *testing.T) {
	const fstab = "LABEL=b /home ext4\n"
	for _, tc := range []struct{ line, want string }{
		{"quiet", "/=1 /home=2"},
		{"fstab=no", "/=1"},
		{"systemd.mount-extra=LABEL=c:/srv:ext4", "/=1 /home=2 /srv=3"},
		{"systemd.mount-extra=tmpfs:/srv:tmpfs", "/=1 /home=2 /srv!tmpfs"},
		{"systemd.volatile=state", "/=1 /home=2 /var!tmpfs"},
		{"systemd.volatile=overlay", "/=1 /home=2"},
		{"systemd.mask=home.mount", "/=1"},
		{"systemd.mask=home.mount systemd.mask=srv.mount", "/=1"},
		{"systemd.volatile=yes", "systemd.volatile=yes"},
		{"systemd.volatile", "systemd.volatile=yes"},
		{"systemd.volatile=yes systemd.volatile=no", "/=1 /home=2"},
		{"rd.systemd.volatile=yes rd.fstab=no rd.systemd.mask=home.mount", "/=1 /home=2"},
	} {
		mounts, err := findMounts(threeVolumes(), files(map[string]string{
			"etc/fstab": fstab, "usr/lib/systemd/system/local-fs.target": "[Unit]",
		}), says(tc.line), rootOne)
		got := told(mounts)
		if fault.Of(err) == fault.Image && strings.Contains(err.Error(), tc.want) {
			got = tc.want
		}
		if got != tc.want {
			t.Errorf("%s: %s, %v; want %s", tc.line, got, err, tc.want)
		}
	}
	// In a system without systemd nobody listens.
	mounts, err := findMounts(threeVolumes(), files(map[string]string{"etc/fstab": fstab}), says("fstab=no systemd.volatile=state"), rootOne)
	if got := told(mounts); got != "/=1 /home=2" || err != nil {
		t.Errorf("without systemd: %s, %v", got, err)
	}
}

// TestOwnDisk: what root is called tells which disk the image's files mean.
func TestOwnDisk(t *testing.T) {
	for _, tc := range []struct{ disk, spec, want string }{
		{"", "/dev/sda2", "2"}, {"", "/dev/vda2", "2"}, {"", "/dev/xvda2", "2"}, {"", "/dev/mmcblk0p2", "2"},
		{"", "/dev/sdb2", ""}, {"", "/dev/sdaa2", ""}, {"", "/dev/mmcblk1p2", ""}, {"", "/dev/sda", ""}, {"", "/dev/vdap2", ""},
		{"", "/dev/nvme0n12", ""},
		{"/dev/sdb", "/dev/sdb2", "2"}, {"/dev/sdb", "/dev/sda2", ""},
		{"/dev/mmcblk1", "/dev/mmcblk1p2", "2"}, {"/dev/mmcblk1", "/dev/mmcblk0p2", ""},
		{"/dev/disk/by-path/x", "/dev/disk/by-path/x-part2", "2"}, {"/dev/disk/by-path/x", "/dev/disk/by-path/y-part2", ""},
		{"/dev/disk/by-id/a-part", "/dev/disk/by-id/a-part-part2", "2"},
	} {
		l := threeVolumes()
		l.Disk = tc.disk
		got := ""
		if v, ok := l.Resolve(tc.spec); ok {
			got = fmt.Sprint(v.Slot)
		}
		if got != tc.want {
			t.Errorf("%s is partition %q where the disk is %q, want %q", tc.spec, got, tc.disk, tc.want)
		}
	}
}

// TestAmbiguousVolume: which of two is mounted, nobody knows.
func TestAmbiguousVolume(t *testing.T) {
	l := threeVolumes()
	l.Volumes[2].Label = "b"
	_, err := findMounts(l, files(map[string]string{"etc/fstab": "LABEL=b /home ext4\n"}), says(""), rootOne)
	for _, part := range []string{"LABEL=b", "/home", "partition 2", "partition 3"} {
		if fault.Of(err) != fault.Image || !strings.Contains(err.Error(), part) {
			t.Errorf("findMounts: %v, want an error about the image that names %s", err, part)
		}
	}
	if _, err := findMounts(l, files(map[string]string{"etc/fstab": "LABEL=b /home ext4 noauto\n"}), says(""), rootOne); err != nil {
		t.Errorf("of what nobody mounts: %v", err)
	}
}

// TestUsrOfItsOwn: by the command line, or by its type where root has none. Of two
// versions the later is meant.
func TestUsrOfItsOwn(t *testing.T) {
	usr := gpt.TypeUsrX86_64.String()
	volumes := []Volume{{Slot: 1, FS: "ext4"}, {Slot: 2, Type: usr, FS: "erofs", PartLabel: "os_9"},
		{Slot: 3, Type: usr, FS: "erofs", PartLabel: "os_10"}, {Slot: 4, Type: usr, PartLabel: "_empty"}}
	for _, tc := range []struct{ name, line, file, want string }{
		{"by its name", "mount.usr=PARTLABEL=os_9", "usr/", "/=1 /usr=2"},
		{"the later by type", "", "usr/", "/=1 /usr=3"},
		{"root has its own", "", "usr/lib/os-release", "/=1"},
	} {
		l := &Layout{Table: GPT, Volumes: volumes}
		mounts, err := findMounts(l, files(map[string]string{tc.file: ""}), says(tc.line), rootOne)
		if got := told(mounts); got != tc.want || err != nil {
			t.Errorf("%s: %s, %v; want %s", tc.name, got, err, tc.want)
		}
	}
	l := &Layout{Table: GPT, Volumes: volumes}
	_, err := findMounts(l, files(nil), says("mount.usr=LABEL=gone"), rootOne)
	if fault.Of(err) != fault.Image || !strings.Contains(err.Error(), "LABEL=gone") {
		t.Errorf("a /usr that no volume is: %v", err)
	}
}

// TestLinksFromRootToUsr: what is enabled in /etc are links into the other volume.
func TestLinksFromRootToUsr(t *testing.T) {
	open := func(files map[string]string) *Tree {
		dir, err := os.Open(watchedDir(t, files))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dir.Close() })
		return treeOf(dir)
	}
	both := withUsr{open(map[string]string{
		"etc/systemd/system/default.target": "-> /usr/lib/systemd/system/some.target", "lib": "-> usr/lib", "usr/x": "", "srv/x": "",
	}), open(map[string]string{
		"lib/systemd/system/some.target": "[Unit]\nWants=srv.mount opt.mount\n", "lib/systemd/system/local-fs.target": "[Unit]\n",
		"lib/systemd/system/srv.mount": "[Mount]\nWhat=LABEL=b\nWhere=/srv\n",
		"lib/systemd/system/opt.mount": "-> /etc/systemd/none",
	})}
	l := threeVolumes()
	mounts, err := findMounts(l, both, says(""), rootOne, Mounted{Mountpoint: "/usr", Slot: 3})
	if got := told(mounts); got != "/=1 /usr=3 /srv=2" || err != nil {
		t.Errorf("%s, %v", got, err)
	}
}

// TestManyMounts: each mount is compared with all others, so there are not any number of
// them; nor of those that binds show once more. Of what is allowed each answer is quick.
func TestManyMounts(t *testing.T) {
	lines := func(n int, format string) string {
		var b strings.Builder
		for k := range n {
			fmt.Fprintf(&b, format, k)
		}
		return b.String()
	}
	for _, tc := range []struct {
		name, fstab string
		refused     bool
	}{
		{"a thousand", lines(990, "tmpfs /%d tmpfs\n"), false},
		{"a thousand of binds", lines(990, "/x/%[1]d /%[1]d none bind\n"), false},
		{"many", lines(20_000, "tmpfs /%d tmpfs\n"), true},
		{"an fstab too large", lines(200_000, "tmpfs /%d tmpfs\n"), true},
		{"binds of all that is below", lines(9, "/ /%d none rbind\n"), false},
		{"so many that they multiply", lines(25, "/ /%d none rbind\n"), true},
	} {
		began := time.Now()
		l := threeVolumes()
		mounts, err := findMounts(l, files(map[string]string{
			"etc/fstab": tc.fstab, "usr/lib/systemd/system/local-fs.target": "[Unit]",
		}), says(""), rootOne)
		if err == nil {
			l.Mounts, _, err = (&Image{Layout: l, guest: &GuestOptions{}}).inReality(mounts)
			coverBinds(l.Mounts)
			for _, m := range l.Mounts {
				l.Cover(m.Mountpoint)
			}
		}
		if refused := fault.Of(err) == fault.Image; refused != tc.refused || err != nil && !refused {
			t.Errorf("%s: %v", tc.name, err)
		}
		if took := time.Since(began); took > 4*time.Second { // a tenth of that, but on a busy machine
			t.Errorf("%s: %v", tc.name, took)
		}
	}
}
