package boot

import (
	"strings"
	"testing"
)

// TestJudge: what is told of small changes to a system that is right.
func TestJudge(t *testing.T) {
	right := map[string]string{
		"boot/grub/grub.cfg": "menuentry a --id a {\nlinux /boot/vmlinuz-6.1 root=LABEL=root\ninitrd /boot/initrd\n}\n" +
			"menuentry b --id b {\nlinux /boot/vmlinuz-6.0 root=LABEL=root\ninitrd /boot/initrd\n}\n",
		"boot/vmlinuz-6.1": "x", "boot/vmlinuz-6.0": "x", "boot/initrd": "x",
		"usr/lib/modules/6.1/modules.dep": "", "usr/lib/modules/6.0/modules.dep": "", "usr/sbin/init": "x", "bin/sh": "x",
		"sbin/init": "x",
	}
	grub := right["boot/grub/grub.cfg"]
	for _, tc := range []struct {
		name   string
		change map[string]string // a file that is "-" is not there
		want   string            // all that is told, up to what is behind a colon
	}{
		{"right", nil, ""},
		{"an older default by chance", map[string]string{"boot/grub/grub.cfg": strings.Replace(grub, "menuentry b", "menuentry 0", 1) +
			"menuentry c {\nlinux /boot/vmlinuz-6.2 root=LABEL=root\ninitrd /boot/initrd\n}\n", "boot/vmlinuz-6.2": "x",
			"usr/lib/modules/6.2/modules.dep": ""}, "note: /boot/vmlinuz-6.2 is newer than 6.1, which /boot/grub/grub.cfg starts by default\n"},
		{"an older default by choice", map[string]string{"boot/grub/grub.cfg": grub + "set default=b\n"}, ""},
		{"another root by default", map[string]string{"boot/grub/grub.cfg": strings.Replace(grub, "LABEL=root", "LABEL=other", 1)},
			"wrong: /boot/grub/grub.cfg:2 starts with root=LABEL=other, which is not the root of this image\n"},
		{"another root besides", map[string]string{"boot/grub/grub.cfg": strings.Replace(grub, "6.0 root=LABEL=root", "6.0 root=LABEL=x", 1)},
			"note: /boot/grub/grub.cfg:6 starts another system: LABEL=x is not the root of this image\n"},
		{"no root", map[string]string{"boot/grub/grub.cfg": strings.ReplaceAll(grub, "root=LABEL=root", "")},
			"note: /boot/grub/grub.cfg:2 starts /boot/vmlinuz-6.1 without root=\n" +
				"note: /boot/grub/grub.cfg:6 starts /boot/vmlinuz-6.0 without root=\n"},
		{"an initrd that is gone", map[string]string{"boot/initrd": "-"},
			"wrong: /boot/grub/grub.cfg:2 loads /boot/initrd, which is not there: an initrd was removed without its loader hearing of it\n"},
		{"a text for a kernel", map[string]string{"boot/vmlinuz-6.1": "!x"},
			"wrong: /boot/grub/grub.cfg:2 starts /boot/vmlinuz-6.1, which is a text and no kernel\n"},
		{"a text for an initrd", map[string]string{"boot/initrd": "!x"},
			"wrong: /boot/grub/grub.cfg:2 loads /boot/initrd, which is a text and no initrd\n"},
		{"a hypervisor, whose modules are of any sort", map[string]string{"boot/grub/grub.cfg": grub + "menuentry xen {\nmultiboot2 /xen.gz\n" +
			"module2 /boot/vmlinuz-6.1 placeholder root=LABEL=root\nmodule2 /policy\n}\n", "policy": "x"}, ""},
		{"no init", map[string]string{"sbin/init": "-"}, "wrong: the root has no init: no program is at /sbin/init, /etc/init, /bin/init, " +
			"/usr/lib/systemd/systemd, /lib/systemd/systemd\n"},
		{"an init that is empty", map[string]string{"sbin/init": ""}, "wrong: the root has no init: no program is at /sbin/init, /etc/init, " +
			"/bin/init, /usr/lib/systemd/systemd, /lib/systemd/systemd\n"},
		{"another init", map[string]string{"sbin/init": "-",
			"boot/grub/grub.cfg": strings.ReplaceAll(grub, "LABEL=root", "LABEL=root init=/bin/sh")}, ""},
		{"another init that is gone", map[string]string{"boot/grub/grub.cfg": strings.ReplaceAll(grub, "LABEL=root", "LABEL=root init=/x")},
			"wrong: /boot/grub/grub.cfg:2 starts with init=/x, which is no program of this image\n"},
		{"a directory for a kernel", map[string]string{"boot/vmlinuz-6.1": "-", "boot/vmlinuz-6.1/x": ""},
			"wrong: /boot/grub/grub.cfg:2 starts /boot/vmlinuz-6.1, which is no file\n"},
		{"no initrd and no modules", map[string]string{"boot/grub/grub.cfg": "linux /boot/vmlinuz-6.1 root=LABEL=root",
			"usr/lib/modules/6.1/modules.dep": "-", "usr/lib/modules/6.0/modules.dep": "-"},
			"note: /boot/grub/grub.cfg:1 starts /boot/vmlinuz-6.1, kernel 6.1, which has no modules: all that it needs has to be built in\n" +
				"note: no entry of /boot/grub/grub.cfg starts /boot/vmlinuz-6.0\n"},
		{"backups are no kernels", map[string]string{"boot/vmlinuz-6.9.old": "x", "boot/vmlinuz-6.9.dpkg-new": "x", "boot/vmlinuz-6.9": ""}, ""},
		{"files below a mount", map[string]string{"boot/efi/loader/entries/x.conf": "linux /gone\noptions root=LABEL=root\n"}, ""},
	} {
		files := map[string]string{}
		for _, texts := range []map[string]string{right, tc.change} {
			for name, text := range texts {
				if files[name] = text; text == "-" {
					delete(files, name)
				}
			}
		}
		esp := tree(map[string]string{"EFI/x": ""})
		in := []Place{{At: "/", FS: tree(files)}, {At: "/boot/efi", FS: esp}}
		_, err := Entries(in)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for _, f := range Read(in).Judge(isRoot) {
			if got.WriteString(map[bool]string{true: "note: ", false: "wrong: "}[f.Note] + f.What + "\n"); !f.Note && f.Mend == "" {
				t.Errorf("%s: no mend for %s", tc.name, f.What)
			}
		}
		if got.String() != tc.want {
			t.Errorf("%s:\n%s, want\n%s", tc.name, &got, tc.want)
		}
	}
}

// TestExtlinuxDefault: what a menu marks goes before what is named.
func TestExtlinuxDefault(t *testing.T) {
	in := []Place{{At: "/boot", FS: tree(map[string]string{
		"extlinux.conf": "DEFAULT a\nLABEL a\nLINUX a\nLABEL b\nMENU DEFAULT yes\nLINUX b\nAPPEND initrd=i,/j ro\n"})}}
	entries, err := Entries(in)
	if err != nil || len(entries) != 2 || entries[0].ID != "b" || strings.Join(entries[0].Initrds, " ") != "/boot/i /boot/j" {
		t.Errorf("%+v, %v", entries, err)
	}
}

// TestRaspberryPrefix: all files are below the prefix.
func TestRaspberryPrefix(t *testing.T) {
	in := []Place{{FS: tree(map[string]string{"config.txt": "os_prefix=new/\nauto_initramfs=1\n", "start4.elf": "x",
		"new/kernel8.img": "x", "new/initramfs8": "x", "new/cmdline.txt": "ro", "kernel7.img": "x"})}}
	entries, err := Entries(in)
	if err != nil || len(entries) != 1 || describe(entries) != "* raspberry (ESP)/config.txt id=\"kernel8.img\" title=\"64 bits\" version=\n"+
		"\t(ESP)/new/kernel8.img [(ESP)/new/initramfs8]\n\tro\n" {
		t.Errorf("%s, %v", describe(entries), err)
	}
}
