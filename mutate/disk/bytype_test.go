package disk

import (
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/gpt"
)

// TestMountsByType: what systemd mounts where fstab says nothing.
func TestMountsByType(t *testing.T) {
	const program = "usr/lib/" + generator
	home, srv, boot, esp := gpt.TypeHome.String(), gpt.TypeSrv.String(), gpt.TypeXBOOTLDR.String(), gpt.TypeESP.String()
	for _, tc := range []struct {
		name    string
		volumes []Volume
		files   map[string]string // beside the generator
		want    string
	}{
		{"each", []Volume{{Slot: 2, Type: home, FS: "ext4"}, {Slot: 3, Type: srv, FS: "xfs"}, {Slot: 4, Type: boot, FS: "ext4"}},
			map[string]string{"home/": "", "srv/": "", "boot/": ""}, "/boot=4 /home=2 /srv=3"},
		{"in capitals", []Volume{{Slot: 2, Type: strings.ToUpper(home), FS: "ext4"}}, map[string]string{"home/": ""}, "/home=2"},
		{"the first of two", []Volume{{Slot: 2, Type: home, FS: "ext4"}, {Slot: 3, Type: home, FS: "ext4"}},
			map[string]string{"home/": ""}, "/home=2"},
		{"not where root has something", []Volume{{Slot: 2, Type: home, FS: "ext4"}}, map[string]string{"home/user/file": ""}, ""},
		{"not where there is no directory", []Volume{{Slot: 2, Type: home, FS: "ext4"}}, nil, ""},
		{"by fstab already", []Volume{{Slot: 2, Label: "b", Type: home, FS: "ext4"}},
			map[string]string{"home/": "", "etc/fstab": "LABEL=b /home ext4"}, "/home=2"},
		{"something else by fstab", []Volume{{Slot: 2, Type: home, FS: "ext4"}},
			map[string]string{"home/": "", "etc/fstab": "tmpfs /home tmpfs"}, "/home!tmpfs"},
		{"a unit that is masked", []Volume{{Slot: 2, Type: home, FS: "ext4"}},
			map[string]string{"home/": "", "etc/systemd/system/home.mount": ""}, ""},
		{"to be left alone", []Volume{{Slot: 2, Type: home, FS: "ext4", NoAuto: true}}, map[string]string{"home/": ""}, ""},
		{"nothing in it", []Volume{{Slot: 2, Type: home}}, map[string]string{"home/": ""}, ""},
		{"of any Linux", []Volume{{Slot: 2, Type: gpt.TypeLinuxGeneric.String(), FS: "ext4"}}, map[string]string{"home/": ""}, ""},
		{"/var, which is of one machine", []Volume{{Slot: 2, Type: gpt.TypeVar.String(), FS: "ext4"}}, map[string]string{"var/": ""}, ""},

		{"the ESP on an empty /boot", []Volume{{Slot: 2, Type: esp, FS: "vfat"}}, map[string]string{"boot/": "", "efi/": ""}, "/boot=2"},
		{"beside a /boot with files", []Volume{{Slot: 2, Type: esp, FS: "vfat"}}, map[string]string{"boot/vmlinuz": "", "efi/": ""}, "/efi=2"},
		{"beside a volume for /boot", []Volume{{Slot: 2, Type: esp, FS: "vfat"}, {Slot: 3, Type: boot, FS: "ext4"}},
			map[string]string{"boot/": "", "efi/": ""}, "/boot=3 /efi=2"},
		{"which is on /boot by fstab", []Volume{{Slot: 2, Label: "e", Type: esp, FS: "vfat"}},
			map[string]string{"boot/": "", "efi/": "", "etc/fstab": "LABEL=e /boot vfat"}, "/boot=2"},
		{"which is below /boot by fstab", []Volume{{Slot: 2, Label: "e", Type: esp, FS: "vfat"}},
			map[string]string{"boot/vmlinuz": "", "efi/": "", "etc/fstab": "LABEL=e /boot/efi vfat"}, "/boot/efi=2"},
		{"so in systemd 252, which mounts it twice", []Volume{{Slot: 2, Label: "e", Type: esp, FS: "vfat"}},
			map[string]string{"boot/vmlinuz": "", "efi/": "", "etc/fstab": "LABEL=e /boot/efi vfat",
				"usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-252.so": ""}, "/efi=2 /boot/efi=2"},
		{"another place by fstab, in systemd 255", []Volume{{Slot: 2, Label: "e", Type: esp, FS: "vfat"}, {Slot: 3, Type: boot, FS: "ext4"}},
			map[string]string{"boot/": "", "efi/": "", "etc/fstab": "LABEL=e /mnt vfat",
				"usr/lib/systemd/libsystemd-shared-255.4-1.fc40.so": ""}, "/mnt=2 /boot=3"},
		{"a volume for /boot by fstab", []Volume{{Slot: 2, Type: esp, FS: "vfat"}, {Slot: 3, Label: "b", Type: boot, FS: "ext4"}},
			map[string]string{"boot/": "", "efi/": "", "etc/fstab": "LABEL=b /boot ext4"}, "/boot=3"},
		{"and has no place", []Volume{{Slot: 2, Type: esp, FS: "vfat"}}, map[string]string{"boot/vmlinuz": ""}, ""},
		{"something below /boot by fstab, in systemd 256", []Volume{{Slot: 2, Type: boot, FS: "ext4"}},
			map[string]string{"boot/": "", "etc/fstab": "tmpfs /boot/x tmpfs", "usr/lib/systemd/libsystemd-shared-256.so": ""}, "/boot/x!tmpfs"},
		{"something below /efi", []Volume{{Slot: 2, Type: boot, FS: "ext4"}},
			map[string]string{"boot/": "", "etc/fstab": "tmpfs /efi tmpfs", "usr/lib/systemd/libsystemd-shared-256.so": ""}, "/efi!tmpfs"},
		{"so in systemd 255", []Volume{{Slot: 2, Type: boot, FS: "ext4"}},
			map[string]string{"boot/": "", "etc/fstab": "tmpfs /efi tmpfs", "usr/lib/systemd/libsystemd-shared-255.so": ""}, "/efi!tmpfs /boot=2"},
	} {
		l := &Layout{Table: GPT, Volumes: append([]Volume{{Slot: 1, FS: "ext4"}}, tc.volumes...)}
		with := func(program string) *Tree { return files(withDirs(tc.files, program)) }
		mounts, err := findMounts(l, with(program), says(""), rootOne)
		if got := strings.TrimPrefix(strings.TrimPrefix(told(mounts), "/=1"), " "); got != tc.want || err != nil {
			t.Errorf("%s: %s, %v; want %s", tc.name, got, err, tc.want)
		}
		for what, got := range map[string][]Mounted{
			"without the generator":       l.byType(with("usr/bin/true"), []Mounted{rootOne}, says("")),
			"where it is switched off so": l.byType(with(program), []Mounted{rootOne}, says("root=x systemd.gpt_auto=N")),
			"where it is switched off":    l.byType(with(program), []Mounted{rootOne}, says("root=x systemd.gpt_auto=0")),
			"on a disk with a DOS table":  (&Layout{Table: MBR, Volumes: l.Volumes}).byType(with(program), []Mounted{rootOne}, says("")),
		} {
			if len(got) > 0 {
				t.Errorf("%s, %s: %s", tc.name, what, told(got))
			}
		}
	}
}

// withDirs adds a program to files.
func withDirs(files map[string]string, program string) map[string]string {
	all := map[string]string{program: ""}
	for name, text := range files {
		all[name] = text
	}
	return all
}
