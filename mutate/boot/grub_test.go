package boot

import (
	"testing"
)

// TestGRUB: what a configuration says of the kernel that starts.
func TestGRUB(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"on one line", "menuentry a { linux /v a; initrd /i }", "/v a"},
		{"quotes", `menuentry "a b" { linux "/v w" a\ b 'c $d' "\$e"; }`, "/v w a b c $d $e"},
		{"a line that goes on", "menuentry a {\nlinux /v a \\\n b\n}", "/v a b"},
		{"a comment", "menuentry a { # b {\n#linux /w\nlinux /v a#b\n}", "/v a#b"},
		{"a variable in a word", "u=1\nset r=x\nmenuentry a {\nlinux /v root=UUID=$u-${r} $no root2=$no\n}", "/v root=UUID=1-x"},
		{"its last value", "u=1\nu=2\nlinux /v $u", "/v 2"},
		{"of a condition", "u=1\nif x; then u=2; fi\nlinux /v $u", "/v 2"},
		{"of the other branch", "u=1\nif x; then u=2; else\nlinux /v $u\nfi", "/v 1"},
		{"not of a function", "function f {\nset u=1\nlinux /w\n}\nlinux /v a $u", "/v a"},
		{"the root of an entry alone", "set root=a\nmenuentry a {\nset root=b\n}\nlinux ($root)/v a", "/v a"},
		{"memtest is no kernel", "set default=1\nmenuentry a {\nlinux16 /boot/memtest86+x64.bin\n}\nmenuentry b {\nlinux /v a\n}", "/v a"},
		{"braces that do not match", "}\n}\nmenuentry a {\nlinux /v a", "/v a"},
		{"a quote that does not end", "menuentry a {\nlinux /v 'a\n}\nmenuentry b {", "/v a } menuentry b {"},
		{"another file", "source /boot/other", "/o a"},
		{"a default of a submenu", "set default='s>t'\nlinux /w\nsubmenu s {\nmenuentry u {\nlinux /w\n}\n" +
			"menuentry t {\nlinux /v a\n}\n}", "/v a"},
		{"a default that is not there", "set default=x\nmenuentry a {\nlinux /v a\n}", "/v a"},
		{"a default of a condition", "if [ \"${next_entry}\" ] ; then set default=\"${next_entry}\"\nelse set default=1\nfi\n" +
			"menuentry a {\nlinux /w\n}\nmenuentry b {\nlinux /v a\n}", "/v a"},
	} {
		in := []Place{{At: "/", FS: tree(map[string]string{"boot/grub/grub.cfg": tc.text, "boot/other": "linux /o a"})}}
		entries, err := Entries(in)
		if err != nil || len(entries) == 0 || !entries[0].Default || entries[0].Kernel+" "+entries[0].Options != tc.want {
			t.Errorf("%s: %+v, %v; want %q", tc.name, entries, err, tc.want)
		}
	}
}

// TestVolumes: GRUB's files are on the volume that it searched for.
func TestVolumes(t *testing.T) {
	root := tree(map[string]string{"vmlinuz": "x", "boot/vmlinuz": "x", "boot/grub/grub.cfg": ""})
	boot := tree(map[string]string{"vmlinuz": "x"})
	in := []Place{{At: "/", FS: root, UUID: rootUUID}, {At: "/boot", FS: boot, UUID: bootUUID}}
	for _, tc := range []struct{ search, kernel, want string }{
		{"search --no-floppy --fs-uuid --set=root " + rootUUID, "/vmlinuz", "/vmlinuz"},
		{"search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt2 --hint hd0 " + bootUUID, "/vmlinuz", "/boot/vmlinuz"},
		{"search --fs-uuid " + bootUUID + " --set root", "/vmlinuz", "/boot/vmlinuz"},
		{"search -u " + bootUUID + " -s", "/vmlinuz", "/boot/vmlinuz"},
		{"search.fs_uuid " + bootUUID + " root hd0,gpt2", "/vmlinuz", "/boot/vmlinuz"},
		{"search --fs-uuid --set=other " + bootUUID, "($other)/vmlinuz", "/boot/vmlinuz"},
		{"search --fs-uuid --set=root " + bootUUID, "/gone", "/boot/gone"},
		{"search --fs-uuid --set=root 1111-2222", "/gone", "(UUID=1111-2222)/gone"},
		{"search --label --set=root boot", "/@/boot/vmlinuz", "/boot/vmlinuz"},
		{"search --fs-uuid --set=root " + rootUUID, "/@/boot/vmlinuz", "/@/boot/vmlinuz"}, // no subvolume of another volume's
		{"set root=hd0,gpt2", "(hd0,gpt1)/vmlinuz", "/boot/vmlinuz"},
	} {
		grub := tree(map[string]string{"grub/grub.cfg": tc.search + "\nlinux " + tc.kernel + "\n", "vmlinuz": "x"})
		in[1].FS = grub
		entries, err := Entries(in)
		if err != nil || len(entries) != 1 || entries[0].Kernel != tc.want {
			t.Errorf("%s, %s: %+v, %v; want %s", tc.search, tc.kernel, entries, err, tc.want)
		}
	}
}
