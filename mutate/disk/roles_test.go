package disk

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/gpt"
)

// files are those of a volume, by name and content.
func files(contents map[string]string) *Tree {
	t := fstest.MapFS{}
	for name, text := range contents {
		t[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
	}
	return &Tree{files: t}
}

// told is what is known of volumes after their roles are given, a word each, as
// "2:home=/home", and the places that the system mounts, as "/home=2".
func told(l *Layout) string {
	var words []string
	for _, v := range l.Volumes {
		if v.Role != "" || v.Mountpoint != "" {
			words = append(words, fmt.Sprintf("%d:%s=%s", v.Slot, v.Role, v.Mountpoint))
		}
	}
	for _, m := range l.Mounts {
		words = append(words, fmt.Sprintf("%s=%d", m.Mountpoint, m.Slot))
	}
	return strings.Join(words, " ")
}

// TestRolesByFstab: a volume is what root's fstab mounts it as.
func TestRolesByFstab(t *testing.T) {
	for _, tc := range []struct{ name, fstab, want string }{
		{"none", "", "1:root=/"},
		{"/boot", "LABEL=b /boot ext4", "1:root=/ 2:boot=/boot /boot=2"},
		{"/usr", "LABEL=b /usr ext4", "1:root=/ 2:usr=/usr /usr=2"},
		{"/home", "LABEL=b /home ext4", "1:root=/ 2:home=/home /home=2"},
		{"/srv", "LABEL=b /srv ext4", "1:root=/ 2:srv=/srv /srv=2"},
		{"/var", "LABEL=b /var ext4", "1:root=/ 2:var=/var /var=2"},
		{"/efi", "LABEL=b /efi vfat", "1:root=/ 2:esp=/efi /efi=2"},
		{"/boot/efi", "LABEL=b /boot/efi vfat", "1:root=/ 2:esp=/boot/efi /boot/efi=2"},
		{"another place", "LABEL=b /opt ext4", "1:root=/ 2:=/opt /opt=2"},
		{"a place written oddly", "LABEL=b //home/./ ext4", "1:root=/ 2:home=/home /home=2"},
		{"two volumes", "LABEL=c /var ext4\nLABEL=b /home ext4", "1:root=/ 2:home=/home 3:var=/var /var=3 /home=2"},
		{"root", "LABEL=a / ext4", "1:root=/"},
		{"another volume as root", "LABEL=b / ext4", "1:root=/"},
		{"root once more", "LABEL=a /home btrfs subvol=home", "1:root=/ /home=1"},
		{"a volume in two places", "LABEL=b /home ext4\nLABEL=b /mnt ext4", "1:root=/ 2:home=/home /home=2 /mnt=2"},
		{"and the place with a role second", "LABEL=b /mnt ext4\nLABEL=b /home ext4", "1:root=/ 2:home=/home /mnt=2 /home=2"},
		{"swap", "LABEL=b none swap", "1:root=/"},
		{"swap with a place", "LABEL=b /swap swap", "1:root=/"},
		{"no absolute place", "LABEL=b home ext4", "1:root=/"},
		{"of no volume", "tmpfs /tmp tmpfs\nLABEL=z /home ext4", "1:root=/"},

		// What is not mounted at the start has no role, but for /boot: to that
		// packages write, and its owner mounts it for them.
		{"not at the start", "LABEL=b /home ext4 noauto", "1:root=/"},
		{"at the first use", "LABEL=b /home ext4 noauto,x-systemd.automount", "1:root=/ 2:home=/home /home=2"},
		{"/boot not at the start", "LABEL=b /boot ext4 noauto", "1:root=/ 2:boot=/boot"},
		{"/boot/efi not at the start", "LABEL=b /boot/efi vfat noauto", "1:root=/ 2:esp=/boot/efi"},

		// A directory in another place is a mount without a volume.
		{"a bind mount", "/srv/www /var/www none bind", "1:root=/ /var/www=0"},
		{"a bind mount of all below", "/srv /var none rbind,ro", "1:root=/ /var=0"},
		{"a bind mount not at the start", "/srv/www /var/www none bind,noauto", "1:root=/"},
	} {
		l := &Layout{Volumes: []Volume{
			{Slot: 1, Label: "a", Role: Root, Mountpoint: "/"}, {Slot: 2, Label: "b"}, {Slot: 3, Label: "c"},
		}}
		l.followFstab(files(map[string]string{"etc/fstab": tc.fstab}))
		if got := told(l); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestRolesByType: where fstab says nothing, systemd goes by the type.
func TestRolesByType(t *testing.T) {
	home, srv, boot := gpt.TypeHome.String(), gpt.TypeSrv.String(), gpt.TypeXBOOTLDR.String()
	for _, tc := range []struct {
		name    string
		volumes []Volume
		want    string
	}{
		{"each", []Volume{
			{Slot: 1, Type: home, FS: "ext4"}, {Slot: 2, Type: srv, FS: "xfs"}, {Slot: 3, Type: boot, FS: "vfat"}},
			"1:home=/home 2:srv=/srv 3:boot=/boot"},
		{"in capitals", []Volume{{Slot: 1, Type: strings.ToUpper(home), FS: "ext4"}}, "1:home=/home"},
		{"the first of two", []Volume{{Slot: 1, Type: home, FS: "ext4"}, {Slot: 2, Type: home, FS: "ext4"}}, "1:home=/home"},
		{"by fstab already",
			[]Volume{{Slot: 1, Role: Home, Mountpoint: "/home"}, {Slot: 2, Type: home, FS: "ext4"}}, "1:home=/home"},
		{"something else by fstab", []Volume{{Slot: 1, Type: home, FS: "ext4", Role: Srv, Mountpoint: "/srv"}}, "1:srv=/srv"},
		{"somewhere else by fstab", []Volume{{Slot: 1, Type: home, FS: "ext4", Mountpoint: "/opt"}}, "1:=/opt"},
		{"to be left alone", []Volume{{Slot: 1, Type: home, FS: "ext4", NoAuto: true}}, ""},
		{"nothing in it", []Volume{{Slot: 1, Type: home}}, ""},
		{"of any Linux", []Volume{{Slot: 1, Type: gpt.TypeLinuxGeneric.String(), FS: "ext4"}}, ""},
		{"/var, which is of one machine", []Volume{{Slot: 1, Type: gpt.TypeVar.String(), FS: "ext4"}}, ""},
		{"no type", []Volume{{Slot: 1, FS: "ext4"}}, ""},
	} {
		l := &Layout{Volumes: tc.volumes}
		l.followTypes()
		if got := told(l); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestWhatATreeIs: root is what holds an operating system, by its files.
func TestWhatATreeIs(t *testing.T) {
	for _, tc := range []struct {
		file, want string // a part of what is said
	}{
		{"etc/os-release", "root"},
		{"usr/lib/os-release", "root"},
		{"ostree/repo/config", "ostree"},
		{"root/etc/os-release", `subvolume "root"`},
		{"@/usr/lib/os-release", `subvolume "@"`},
		{"@rootfs/etc/os-release", `subvolume "@rootfs"`},
		{"home/user/etc/os-release", ""},
		{"boot/vmlinuz", ""},
	} {
		got := classify(files(map[string]string{tc.file: ""}))
		if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("a tree with %s is %q, want %q", tc.file, got, tc.want)
		}
	}
	both := files(map[string]string{"ostree/repo/config": "", "etc/os-release": ""})
	if got := classify(both); !strings.Contains(got, "ostree") {
		t.Errorf("a deployment with an os-release is %q", got)
	}
}

func TestNameOfTheSystem(t *testing.T) {
	const debian, fedora = "ID=debian\nVERSION_ID=\"12\"\n", "ID=fedora\nVERSION_ID=42\n"
	for _, tc := range []struct {
		name, want string
		files      map[string]string
	}{
		{"in /etc", "debian 12", map[string]string{"etc/os-release": debian}},
		{"in /usr", "fedora 42", map[string]string{"usr/lib/os-release": fedora}},
		{"/etc before /usr", "debian 12", map[string]string{"etc/os-release": debian, "usr/lib/os-release": fedora}},
		{"no version", "arch", map[string]string{"etc/os-release": "ID=arch\n"}},
		{"none", "", nil},
		{"a file too large to be one", "fedora 42", map[string]string{
			"etc/os-release": debian + strings.Repeat("#", 8<<20), "usr/lib/os-release": fedora}},
		{"the largest", "debian 12", map[string]string{"etc/os-release": debian + strings.Repeat("#", 8<<20-len(debian))}},
	} {
		if got := osName(files(tc.files)); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestLabelsOfSELinux(t *testing.T) {
	for text, want := range map[string]bool{
		"SELINUX=enforcing\n": true, "# x\n SELINUX = permissive \n": true, "SELINUX=disabled\n": false,
		"#SELINUX=enforcing\n": false, "SELINUXTYPE=enforcing\n": false, "SELINUX=enforcing2\n": false, "": false,
	} {
		if got := usesSELinux(files(map[string]string{"etc/selinux/config": text})); got != want {
			t.Errorf("%q: labels: %t, want %t", text, got, want)
		}
	}
	if usesSELinux(files(nil)) {
		t.Error("a system without a configuration labels its files")
	}
}

// program is the least of an ELF file for a machine.
func program(machine elf.Machine) string {
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Ehsize: 64}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, h)
	return b.String()
}

// TestArchitecture is told by the programs of the system, the first that is one.
func TestArchitecture(t *testing.T) {
	x86, arm := program(elf.EM_X86_64), program(elf.EM_AARCH64)
	for _, tc := range []struct {
		name, want string // an error if empty
		files      map[string]string
	}{
		{"systemd", "x86-64", map[string]string{"usr/lib/systemd/systemd": x86}},
		{"systemd where /usr is not merged", "arm64", map[string]string{"lib/systemd/systemd": arm}},
		{"a shell", "arm64", map[string]string{"bin/sh": arm}},
		{"a shell in /usr", "x86-64", map[string]string{"usr/bin/sh": x86}},
		{"busybox", "arm64", map[string]string{"bin/busybox": arm}},
		{"init", "x86-64", map[string]string{"sbin/init": x86}},
		{"systemd before the others", "arm64", map[string]string{"usr/lib/systemd/systemd": arm, "bin/sh": x86}},
		{"a shell that is a script", "arm64", map[string]string{"bin/sh": "#!/bin/bash\n", "sbin/init": arm}},
		{"another machine", "", map[string]string{"bin/sh": program(elf.EM_RISCV)}},
		{"no program", "", map[string]string{"bin/sh": "text"}},
		{"nothing", "", nil},
	} {
		got, err := machineArch(files(tc.files))
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%s: %q, %v, want %q", tc.name, got, err, tc.want)
		}
		if err != nil && fault.Of(err) != fault.Image {
			t.Errorf("%s: error %v is not the image's", tc.name, err)
		}
	}
}

// TestArchitectureOfAHostileProgram: how many sections a program claims to have
// costs no memory.
func TestArchitectureOfAHostileProgram(t *testing.T) {
	const sections = 1 << 21
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Shoff: 64, Shentsize: 64, // without Shnum, the size of the first section is their number
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = 2, 1, 1
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, h)
	_ = binary.Write(&b, binary.LittleEndian, elf.Section64{Size: sections})
	dir := t.TempDir()
	name := filepath.Join(dir, "bin/sh")
	if err := errors.Join(os.Mkdir(filepath.Dir(name), 0o755), os.WriteFile(name, b.Bytes(), 0o755),
		os.Truncate(name, 64*(sections+1))); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	arch, err := machineArch(TreeAt(root))
	runtime.ReadMemStats(&after)
	if arch != "x86-64" || err != nil {
		t.Errorf("machineArch = %q, %v", arch, err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("it took %d MiB of memory", took>>20)
	}
}

// TestWhoseFault: what this machine lacks is no fault of an image.
func TestWhoseFault(t *testing.T) {
	for _, e := range []error{
		syscall.EPERM, syscall.EACCES, syscall.ENOENT, syscall.EBUSY, syscall.EMFILE, syscall.ENOMEM,
	} {
		if !hostFault(fmt.Errorf("mount: %w", e)) {
			t.Errorf("%v is taken for the image's fault", e)
		}
	}
	for _, e := range []error{syscall.EUCLEAN, syscall.EBADMSG, syscall.EIO, syscall.EINVAL, errors.New("x"), nil} {
		if hostFault(e) {
			t.Errorf("%v is taken for the machine's fault", e)
		}
	}
}

// TestRootIsTheTypedOne of several candidates, if one is.
func TestRootIsTheTypedOne(t *testing.T) {
	x86, arm := gpt.TypeRootX86_64.String(), strings.ToUpper(gpt.TypeRootARM64.String())
	for _, tc := range []struct {
		types []string
		want  []int
	}{
		{[]string{"", x86}, []int{1}},
		{[]string{arm, ""}, []int{0}},
		{[]string{"", gpt.TypeHome.String()}, []int{0, 1}},
		{[]string{x86, "", arm}, []int{0, 2}},
	} {
		var candidates []*Volume
		for i, kind := range tc.types {
			candidates = append(candidates, &Volume{Slot: i, Type: kind})
		}
		var got []int
		for _, v := range typedRoots(candidates) {
			got = append(got, v.Slot)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("of types %q (-want +got):\n%s", tc.types, diff)
		}
	}
}

// TestBlkidsBackslashes: before what a shell would take for more than a letter
// blkid writes a backslash.
func TestBlkidsBackslashes(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "root": "root", `my\ root`: "my root", `a\\b`: `a\b`, `a\\\\`: `a\\`, `\$x`: "$x", `cut\`: `cut\`,
	} {
		if got := unescape(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}
