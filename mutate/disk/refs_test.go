package disk_test

import (
	"io/fs"
	"maps"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text), Mode: 0o644} }

func TestReferences(t *testing.T) {
	const uuid = "6284c3a7-b15f-40d3-a476-5fa1d82c3b06"
	needed := func(name string, specs ...string) (refs []disk.Reference) {
		for _, s := range specs {
			refs = append(refs, disk.Reference{Slot: 3, File: name, Spec: s, Needed: true})
		}
		return refs
	}
	for _, tc := range []struct {
		name, file, text string
		want             []disk.Reference
	}{
		{"fstab", "etc/fstab", "# UUID=comment / ext4\nUUID=" + uuid + " / ext4 defaults 0 1\nLABEL=x /x ext4 nofail\nPARTLABEL=y /y ext4 defaults,noauto\n/dev/disk/by-partuuid/696d676d-01 /z xfs\ntmpfs /tmp tmpfs\n/dev/sda1 /a ext4\n",
			[]disk.Reference{
				{Slot: 3, File: "etc/fstab", Spec: "UUID=" + uuid, Needed: true},
				{Slot: 3, File: "etc/fstab", Spec: "LABEL=x"},
				{Slot: 3, File: "etc/fstab", Spec: "PARTLABEL=y"},
				{Slot: 3, File: "etc/fstab", Spec: "PARTUUID=696d676d-01", Needed: true},
			}},
		{"fstab, quoted", "etc/fstab", "UUID=\"1A2B-3C4D\"\t/boot/efi\tvfat\n", needed("etc/fstab", "UUID=1A2B-3C4D")},
		{"crypttab", "etc/crypttab", "# UUID=no\nhome UUID=" + uuid + " none luks\nswap /dev/disk/by-label/swap /dev/urandom swap\n",
			needed("etc/crypttab", "UUID="+uuid, "LABEL=swap")},
		{"kernel command line", "etc/kernel/cmdline", "root=PARTUUID=" + uuid + " ro rootflags=subvol=@ resume=UUID=1A2B-3C4D\n",
			needed("etc/kernel/cmdline", "PARTUUID="+uuid, "UUID=1A2B-3C4D")},
		{"loader entry", "loader/entries/a.conf", "title Debian\n# options root=UUID=no\noptions root=LABEL=root quiet root=LABEL=root\n", needed("loader/entries/a.conf", "LABEL=root")},
		{"loader entry in /boot", "boot/loader/entries/b.conf", "options \"root=LABEL=a b\" x\n", needed("boot/loader/entries/b.conf", "LABEL=a")},
		{"quoted value", "etc/default/grub", "GRUB_CMDLINE_LINUX='root=LABEL=\"a b\"'\n", needed("etc/default/grub", "LABEL=a b")},
		{"drop-in of grub's defaults", "etc/default/grub.d/50-cloud.cfg", "GRUB_CMDLINE_LINUX=\"root=UUID=" + uuid + "\"\n",
			needed("etc/default/grub.d/50-cloud.cfg", "UUID="+uuid)},
		{"grub", "boot/grub/grub.cfg", "if [ x = y ]; then\n  search --no-floppy --fs-uuid --set=root --hint-efi=hd0,gpt2 --hint='hd0,gpt2'  " + uuid + "\nfi\n\tlinux /vmlinuz root=UUID=" + uuid + " ro\n",
			needed("boot/grub/grub.cfg", "UUID="+uuid)},
		{"grub, fs-uuid last", "grub2/grub.cfg", "search --set=root --fs-uuid 1A2B-3C4D\n", needed("grub2/grub.cfg", "UUID=1A2B-3C4D")},
		{"grub's stub in an ESP", "EFI/debian/grub.cfg", "search.fs_uuid " + uuid + " root hd0,gpt2\nset prefix=($root)'/boot/grub'\n", needed("EFI/debian/grub.cfg", "UUID="+uuid)},
		{"variables", "boot/grub2/grub.cfg", "search --fs-uuid --set=root $BOOT_UUID\nlinux /v root=UUID=${BOOT_UUID} a=UUID=$x b=LABEL=`c`\n", nil},
		{"other words", "etc/kernel/cmdline", "BOOT_UUID=a rd.luks.uuid=b MYLABEL=c", nil},
		{"extlinux", "extlinux/extlinux.conf", "append root=PARTUUID=696d676d-01\n", needed("extlinux/extlinux.conf", "PARTUUID=696d676d-01")},
		{"Raspberry Pi", "cmdline.txt", "root=PARTUUID=696d676d-02 rootwait", needed("cmdline.txt", "PARTUUID=696d676d-02")},
		{"grub's environment", "boot/grub2/grubenv", "# GRUB Environment Block\nkernelopts=root=UUID=" + uuid + " ro \n#####", needed("boot/grub2/grubenv", "UUID="+uuid)},
		{"mount unit", "etc/systemd/system/srv.mount", "[Mount]\nWhat=/dev/disk/by-partuuid/696d676d-02\n",
			[]disk.Reference{{Slot: 3, File: "etc/systemd/system/srv.mount", Spec: "PARTUUID=696d676d-02"}}},
		{"another file", "etc/motd", "UUID=" + uuid, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := disk.Volume{Slot: 3}.References(fstest.MapFS{tc.file: file(tc.text)})
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("References (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRenameRefusesWhatIsTooLarge(t *testing.T) {
	files := fstest.MapFS{"boot/grub/grub.cfg": {Data: make([]byte, 8<<20+1), Mode: 0o644}}
	err := disk.Volume{}.Rename(files, nil, func(string, []byte) error { return nil })
	if fault.Of(err) != fault.Image || !strings.Contains(err.Error(), "boot/grub/grub.cfg has 8388609 bytes") {
		t.Errorf("Rename = %v, want one about the image", err)
	}
}

// TestReferencesInFAT: FAT keeps the case of names and does not care for it.
func TestReferencesInFAT(t *testing.T) {
	files := fstest.MapFS{"EFI/REDHAT/GRUB.CFG": file("search.fs_uuid 1A2B-3C4D root\n"), "Loader/Entries/a.Conf": file("options root=LABEL=x\n")}
	want := []disk.Reference{{File: "Loader/Entries/a.Conf", Spec: "LABEL=x", Needed: true}, {File: "EFI/REDHAT/GRUB.CFG", Spec: "UUID=1A2B-3C4D", Needed: true}}
	if diff := cmp.Diff(want, disk.Volume{FS: "vfat"}.References(files)); diff != "" {
		t.Errorf("References (-want +got):\n%s", diff)
	}
	if got := (disk.Volume{FS: "ext4"}).References(files); len(got) > 0 {
		t.Errorf("References of ext4 = %v, want none", got)
	}
}

// rename gives the files that Rename writes.
func rename(t *testing.T, files fs.FS, uuids map[string]string) map[string]string {
	t.Helper()
	written := map[string]string{}
	err := disk.Volume{}.Rename(files, uuids, func(name string, b []byte) error { written[name] = string(b); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return written
}

func TestRename(t *testing.T) {
	const a, b, other = "3f519074-8e2c-4da0-b143-2c7ea5f90803", "2e408f63-7d1b-4c9f-a032-1b6d94e8f702", "5173b296-a04e-4fc2-9365-4e90c71b2a05"
	for _, tc := range []struct {
		name, in, want string
		uuids          map[string]string
	}{
		{"in any letter case", "PARTUUID=" + a + " PARTUUID=" + strings.ToUpper(a), "PARTUUID=" + b + " PARTUUID=" + b, map[string]string{a: b}},
		{"nothing else", "UUID=" + other + " /dev/disk/by-partuuid/" + a + "\r\n", "UUID=" + other + " /dev/disk/by-partuuid/" + b + "\r\n", map[string]string{a: b}},
		{"swapped", a + " " + b, b + " " + a, map[string]string{a: b, b: a}},
		{"part of a longer word", "x" + a + " " + a + "0 0" + a, "x" + a + " " + a + "0 0" + a, map[string]string{a: b}},
		{"of an MBR", "root=PARTUUID=696d676d-01 PARTUUID=696D676D-02 PARTUUID=696d676d-010", "root=PARTUUID=12345678-01 PARTUUID=12345678-02 PARTUUID=696d676d-010",
			map[string]string{"696d676d-01": "12345678-01", "696d676d-02": "12345678-02"}},
		{"the first group alone is no MBR's", "UUID=696d676d-01ab-4000-8000-000000000000", "UUID=696d676d-01ab-4000-8000-000000000000", map[string]string{"696d676d-01": "12345678-01"}},
		{"bytes that are no text", "\xff\x00" + a + "\xfe", "\xff\x00" + b + "\xfe", map[string]string{a: b}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := map[string]string{"etc/fstab": tc.want, "loader/entries/x.conf": tc.want}
			if tc.in == tc.want {
				clear(want) // what does not change is not written
			}
			got := rename(t, fstest.MapFS{"etc/fstab": file(tc.in), "loader/entries/x.conf": file(tc.in), "etc/motd": file(tc.in)}, tc.uuids)
			if !maps.Equal(got, want) {
				t.Errorf("Rename writes %q, want %q", got, want)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	gpt := &disk.Layout{Volumes: []disk.Volume{
		{Slot: 1, UUID: "1A2B-3C4D", Label: "ESP", PartUUID: "2e408f63-7d1b-4c9f-a032-1b6d94e8f702", PartLabel: "EFI System"},
		{Slot: 2, UUID: rootUUID, Label: "my root", PartUUID: "3f519074-8e2c-4da0-b143-2c7ea5f90803", PartLabel: "root"},
		{Slot: 12, UUID: bootUUID},
	}}
	for spec, want := range map[string]int{
		"UUID=" + rootUUID:                  2,
		"UUID=" + strings.ToUpper(rootUUID): 2,
		"UUID=1a2b-3c4d":                    1,
		`UUID="1A2B-3C4D"`:                  1,
		`"UUID=1A2B-3C4D"`:                  1,
		"LABEL=ESP":                         1,
		"LABEL=esp":                         0,
		"LABEL=my root":                     2,
		`LABEL="my root"`:                   2,
		`LABEL=my\040root`:                  2,
		"PARTUUID=3F519074-8E2C-4DA0-B143-2C7EA5F90803": 2,
		"PARTLABEL=root":              2,
		`PARTLABEL="EFI System"`:      1,
		"/dev/disk/by-uuid/1A2B-3C4D": 1,
		"/dev/disk/by-label/ESP":      1,
		"/dev/disk/by-partuuid/2e408f63-7d1b-4c9f-a032-1b6d94e8f702": 1,
		"/dev/disk/by-partlabel/root":                                2,
		"/dev/disk/by-id/root":                                       0,
		"/dev/vda2":                                                  2,
		"/dev/sda12":                                                 12,
		"/dev/xvda1":                                                 1,
		"/dev/hda1":                                                  1,
		"/dev/nvme0n1p2":                                             2,
		"/dev/mmcblk0p12":                                            12,
		"/dev/sda3":                                                  0,
		"/dev/sda":                                                   0,
		"/dev/sda0":                                                  0,
		"/dev/nvme0n12":                                              0,
		"/dev/mapper/vg-root":                                        0,
		"/dev/vda99999999999999999999":                               0,
		"UUID=":                                                      0,
		`UUID=""`:                                                    0,
		"uuid=" + rootUUID:                                           0,
		"tmpfs":                                                      0,
		"":                                                           0,
	} {
		v, ok := gpt.Resolve(spec)
		if got := slot(v); got != want || ok != (want != 0) {
			t.Errorf("Resolve(%s) = slot %d, %t; want %d", spec, got, ok, want)
		}
	}
	bare := &disk.Layout{Table: disk.Bare, Volumes: []disk.Volume{{}}}
	for _, spec := range []string{"LABEL=", "/dev/sda0", "PARTUUID="} {
		if _, ok := bare.Resolve(spec); ok {
			t.Errorf("Resolve(%s) finds a bare volume without a name", spec)
		}
	}
}

func slot(v *disk.Volume) int {
	if v == nil {
		return 0
	}
	return v.Slot
}

func TestParseFstab(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     []disk.Mount
	}{
		{"empty", "", nil},
		{"comments and blank lines", "# a\n\n   \n \t# UUID=x / ext4\n", nil},
		{"all fields", "UUID=x / ext4 errors=remount-ro,noatime 0 1\n", []disk.Mount{{"UUID=x", "/", "ext4", []string{"errors=remount-ro", "noatime"}}}},
		{"no options", "LABEL=x\t/x   xfs", []disk.Mount{{"LABEL=x", "/x", "xfs", nil}}},
		{"line ends of Windows", "LABEL=x /x xfs ro\r\nLABEL=y /y xfs ro\r\n", []disk.Mount{{"LABEL=x", "/x", "xfs", []string{"ro"}}, {"LABEL=y", "/y", "xfs", []string{"ro"}}}},
		{"white space in a path", `LABEL=x /my\040disk\011\134040 ext4`, []disk.Mount{{"LABEL=x", "/my disk\t\\040", "ext4", nil}}},
		{"no octal number", `LABEL=x /a\777\08\ ext4`, []disk.Mount{{"LABEL=x", `/a\777\08\`, "ext4", nil}}},
		{"too few fields", "UUID=x /\nUUID=y\n", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, disk.ParseFstab(tc.in)); diff != "" {
				t.Errorf("ParseFstab (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMountHas(t *testing.T) {
	m := disk.Mount{Options: []string{"nofail", "x-systemd.device-timeout=5"}}
	for option, want := range map[string]bool{"nofail": true, "fail": false, "noauto": false, "": false} {
		if m.Has(option) != want {
			t.Errorf("Has(%q) = %t", option, !want)
		}
	}
}

func TestParseOSRelease(t *testing.T) {
	const text = "# ID=comment\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\r\nID=debian\n VERSION_ID='12'\nEMPTY=\nURL=\"https://a/?b=c\"\nnoise\n"
	want := map[string]string{"PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)", "ID": "debian", "VERSION_ID": "12", "EMPTY": "", "URL": "https://a/?b=c"}
	if diff := cmp.Diff(want, disk.ParseOSRelease(text)); diff != "" {
		t.Errorf("ParseOSRelease (-want +got):\n%s", diff)
	}
}
