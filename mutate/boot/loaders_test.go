package boot

import (
	"strings"
	"testing"
)

// TestFiles: all that a boot loader reads is listed, wherever it lies.
func TestFiles(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"nothing", map[string]string{"boot/vmlinuz": "x"}, ""},
		{"GRUB", map[string]string{"boot/grub/grub.cfg": "source /srv/more.cfg\nmenuentry a {\nlinux /srv/k ro\n" +
			"initrd /srv/ucode /boot/initrd\ndevicetree /srv/x.dtb\n}\nmenuentry b {\nchainloader /srv/x.efi\n}\n" +
			"menuentry c {\nconfigfile /srv/other.cfg\n}\n", "srv/more.cfg": "menuentry d {\nlinux /opt/k\n}\n"},
			"/boot/grub/grub.cfg /boot/initrd /opt/k /srv/k /srv/more.cfg /srv/other.cfg /srv/ucode /srv/x.dtb /srv/x.efi"},
		{"loader entries", map[string]string{
			"boot/loader/entries/a.conf": "linux /srv/k\ninitrd /srv/a /srv/b\ndevicetree /srv/x.dtb\ndevicetree-overlay /srv/1 /srv/2\n",
			"boot/loader/entries/b.conf": "title a tool\nefi /srv/x.efi\n"},
			"/boot/loader/entries/a.conf /boot/loader/entries/b.conf /srv/1 /srv/2 /srv/a /srv/b /srv/k /srv/x.dtb /srv/x.efi"},
		{"extlinux", map[string]string{"boot/extlinux/extlinux.conf": "LABEL a\nLINUX /srv/k\nINITRD /srv/a,/srv/b\nFDTDIR /srv/dtbs\n" +
			"FDTOVERLAYS ../1 /srv/2\n"}, "/boot/1 /boot/extlinux/extlinux.conf /srv/2 /srv/a /srv/b /srv/dtbs /srv/k"},
	} {
		for _, name := range strings.Fields(tc.want) {
			if _, ok := tc.files[name[1:]]; !ok && !strings.HasPrefix(name, "/boot/1") {
				tc.files[name[1:]] = "x"
			}
		}
		got := strings.Join(Read([]Place{{At: "/", FS: tree(tc.files)}}).Files(), " ")
		if got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}
