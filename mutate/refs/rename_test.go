package refs_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/mutate/refs"
)

// TestRenameFilesystems: each sort of UUID is followed by its own tags, and where
// nothing is said, by whoever alone has it.
func TestRenameFilesystems(t *testing.T) {
	const fs, part, both = "3f519074-8e2c-4da0-b143-2c7ea5f90803", "5173b296-a04e-4fc2-9365-4e90c71b2a05",
		"6284c3a7-b15f-40d3-a476-5fa1d82c3b06"
	const newFS, newPart, bothFS, bothPart = "aaaaaaaa-8e2c-4da0-b143-2c7ea5f90803", "bbbbbbbb-a04e-4fc2-9365-4e90c71b2a05",
		"cccccccc-b15f-40d3-a476-5fa1d82c3b06", "dddddddd-b15f-40d3-a476-5fa1d82c3b06"
	const kept, newKept = "7395d4b8-c260-41e4-b587-60b2e93d4c07", "eeeeeeee-c260-41e4-b587-60b2e93d4c07"
	names := refs.Names{
		Partitions:  map[string]string{part: newPart, both: bothPart, "696d676d-01": "12345678-01", kept: newKept},
		Filesystems: map[string]string{fs: newFS, both: bothFS, "1a2b-3c4d": "5E6F-7A8B"},
		Here:        []string{strings.ToUpper(kept)},
	}
	for _, tc := range []struct{ name, in, want string }{
		{"fstab", "UUID=" + fs + " / ext4", "UUID=" + newFS + " / ext4"},
		{"in any letter case", `UUID="` + strings.ToUpper(fs) + `"`, `UUID="` + newFS + `"`},
		{"as a link", "/dev/disk/by-uuid/" + fs, "/dev/disk/by-uuid/" + newFS},
		{"in the name of a unit", `dev-disk-by\x2duuid-` + strings.ReplaceAll(fs, "-", `\x2d`) + ".device",
			`dev-disk-by\x2duuid-` + strings.ReplaceAll(newFS, "-", `\x2d`) + ".device"},
		{"a serial", "UUID=1A2B-3C4D /boot/efi vfat", "UUID=5E6F-7A8B /boot/efi vfat"},
		{"a serial of GRUB's", "search --no-floppy --fs-uuid --set=root --hint-efi=hd0,gpt15 1a2b-3c4d",
			"search --no-floppy --fs-uuid --set=root --hint-efi=hd0,gpt15 5E6F-7A8B"},
		{"a serial's letters", "on 1A2B-3C4D at 1A2B-3C4D", ""},
		{"GRUB's stub", "search.fs_uuid " + fs + " root hd0,gpt1\nset prefix=($root)/boot", "search.fs_uuid " + newFS +
			" root hd0,gpt1\nset prefix=($root)/boot"},
		{"GRUB's search", "search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt1 " + fs, "search --no-floppy --fs-uuid --set=root " +
			"--hint-bios=hd0,gpt1 " + newFS},
		{"GRUB's short search", "search -u " + fs + " -s root", "search -u " + newFS + " -s root"},
		{"GRUB's names of entries", "menuentry 'a' $o 'gnulinux-advanced-" + fs + "' {", "menuentry 'a' $o 'gnulinux-advanced-" + newFS + "' {"},
		{"to resume", "root=UUID=" + fs + " resume=UUID=" + fs, "root=UUID=" + newFS + " resume=UUID=" + newFS},
		{"one UUID of both", "UUID=" + both + " PARTUUID=" + both, "UUID=" + bothFS + " PARTUUID=" + bothPart},
		{"one UUID of both, and no tag", "a " + both, ""},
		{"a partition's after a filesystem's tag", "uuid=" + part + " UUID=696d676d-01", "uuid=" + newPart + " UUID=12345678-01"},
		{"a partition's in a variable", "UUID=" + part + "\nmount PARTUUID=$UUID /x", "UUID=" + newPart + "\nmount PARTUUID=$UUID /x"},
		{"a partition's after other tags", "luks-" + part + " search -u x " + part, "luks-" + newPart + " search -u x " + newPart},
		{"a filesystem's after a partition's tag", "PARTUUID=" + fs + " PARTUUID=1A2B-3C4D", ""},
		{"a partition's without a tag", "a " + part, "a " + newPart},
		{"an MBR's partition without a tag", "a 696d676d-01 luks-696d676d-01", ""},
		{"a partition's, which a filesystem keeps", "UUID=" + kept + " PARTUUID=" + kept + " a " + kept + " LABEL=" + kept +
			" /dev/disk/by-uuid/" + kept, "UUID=" + kept + " PARTUUID=" + newKept + " a " + kept + " LABEL=" + kept +
			" /dev/disk/by-uuid/" + kept},
		{"labels", "LABEL=" + fs + " PARTLABEL=" + fs + " /dev/disk/by-label/" + fs + " by-id/" + fs, ""},
		{"LUKS", "rd.luks.uuid=luks-" + fs, ""},
		{"part of a longer word", "UUID=" + fs + "0 UUID=0" + fs, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			written := map[string]string{}
			files := fstest.MapFS{"boot/grub/grub.cfg": file(tc.in), "etc/any/text": file(tc.in)}
			err := refs.Files{FS: files}.Rename(t.Context(), names, func(p refs.Patch) error {
				written[p.File] = string(p.Bytes)
				return nil
			})
			want := map[string]string{"boot/grub/grub.cfg": tc.want, "etc/any/text": tc.want}
			if tc.want == "" {
				clear(want)
			}
			if diff := cmp.Diff(want, written); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// TestRenameLabels: a label is followed where it is said to be one, and the text may
// change its length.
func TestRenameLabels(t *testing.T) {
	names := refs.Names{Labels: map[string]string{"root": "web-root", "root-2": "web-2", "ESP": "WEB-ESP"}}
	for _, tc := range []struct{ name, in, want string }{
		{"fstab", "LABEL=root / ext4 defaults\nLABEL=root-2 /x\nLABEL=\"ESP\" /boot/efi vfat",
			"LABEL=web-root / ext4 defaults\nLABEL=web-2 /x\nLABEL=\"WEB-ESP\" /boot/efi vfat"},
		{"links", "/dev/disk/by-label/root,x /dev/disk/by-label/root-2", "/dev/disk/by-label/web-root,x /dev/disk/by-label/web-2"},
		{"in the name of a unit", `dev-disk-by\x2dlabel-root\x2d2.device`, `dev-disk-by\x2dlabel-web\x2d2.device`},
		{"GRUB", "search --no-floppy --label --set=root root\nsearch --label root --set x\nsearch.fs_label root root\nsearch -l root-2\n" +
			"set root=root\n", "search --no-floppy --label --set=root web-root\nsearch --label web-root --set x\n" +
			"search.fs_label web-root root\nsearch -l web-2\nset root=root\n"},
		{"Limine and rEFInd", "path: fslabel(root):/a\n  volume \"root\"\n", "path: fslabel(web-root):/a\n  volume \"web-root\"\n"},
		{"before the end of a line that goes on", "linux /x root=LABEL=root\\\n ro", "linux /x root=LABEL=web-root\\\n ro"},
		{"part of a unit's longer name", `dev-disk-by\x2dlabel-root\x2dother.device`, ""},
		{"part of a longer word", "LABEL=root2 LABEL=root.d LABEL=xroot LABEL=Root PARTLABEL=root XLABEL=root", ""},
		{"not said to be one", "root=root root", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := ""
			files := fstest.MapFS{"boot/grub/grub.cfg": file(tc.in)}
			err := refs.Files{FS: files}.Rename(t.Context(), names, func(p refs.Patch) error {
				got = string(p.Bytes)
				return nil
			})
			if got != tc.want || err != nil {
				t.Errorf("%q, %v; want %q", got, err, tc.want)
			}
		})
	}
	for _, tc := range []struct{ name, in, want string }{
		{"boot/grub/grubenv", "kernelopts=root=LABEL=root \n##########", "kernelopts=root=LABEL=web-root \n######"},
		{"boot/grub/grubenv", "kernelopts=root=LABEL=root-2 \n##", "kernelopts=root=LABEL=web-2 \n###"},
		{"boot/grub/grubenv", "kernelopts=root=LABEL=root \n###", ""}, // no room
		{"etc/fstab", `LABEL=r\157ot / ext4 x=\040`, `LABEL=web-root / ext4 x=\040`},
	} {
		got := ""
		err := refs.Files{FS: fstest.MapFS{tc.name: file(tc.in)}}.Rename(t.Context(), names, func(p refs.Patch) error {
			got = string(p.Bytes)
			return nil
		})
		if got != tc.want || (err != nil) != (tc.want == "") {
			t.Errorf("%s: %q, %v; want %q", tc.name, got, err, tc.want)
		}
	}
}

// TestRenameIn: a text that has no name of its own is looked into if it is listed, and
// in no other case.
func TestRenameIn(t *testing.T) {
	const old, fresh = "5173b296-a04e-4fc2-9365-4e90c71b2a05", "bbbbbbbb-a04e-4fc2-9365-4e90c71b2a05"
	files := refs.Files{FS: fstest.MapFS{
		"etc/fstab": file("PARTUUID=" + old + " / ext4"), "etc/listed": file(old), "etc/another": file(old), "etc/clean": file("nothing"),
	}}
	written := map[string]string{}
	others := []string{"etc/listed", "etc/clean", "etc/gone", "etc/fstab", "etc"}
	err := files.RenameIn(t.Context(), refs.Names{Partitions: map[string]string{old: fresh}}, others, func(p refs.Patch) error {
		written[p.File] += string(p.Bytes)
		return nil
	})
	want := map[string]string{"etc/fstab": "PARTUUID=" + fresh + " / ext4", "etc/listed": fresh}
	if diff := cmp.Diff(want, written); diff != "" || err != nil {
		t.Errorf("%v, written (-want +got):\n%s", err, diff)
	}
}
