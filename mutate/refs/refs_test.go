package refs_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/refs"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text), Mode: 0o644} }

// references are what the files name; it is no error.
func references(t *testing.T, f refs.Files) []refs.Reference {
	t.Helper()
	found, err := f.References(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestReferences(t *testing.T) {
	const uuid = "6284c3a7-b15f-40d3-a476-5fa1d82c3b06"
	needed := func(name string, specs ...string) (list []refs.Reference) {
		for _, s := range specs {
			list = append(list, refs.Reference{File: name, Spec: s, Needed: true})
		}
		return list
	}
	for _, tc := range []struct {
		name, file, text string
		want             []refs.Reference
	}{
		{"fstab", "etc/fstab", "# UUID=comment / ext4\nUUID=" + uuid + " / ext4 defaults 0 1\n" +
			"LABEL=x /x ext4 nofail\nPARTLABEL=y /y ext4 defaults,noauto\n" +
			"/dev/disk/by-partuuid/696d676d-01 /z xfs\ntmpfs /tmp tmpfs\n/dev/sda1 /a ext4\n",
			[]refs.Reference{
				{File: "etc/fstab", Spec: "UUID=" + uuid, Needed: true},
				{File: "etc/fstab", Spec: "LABEL=x"},
				{File: "etc/fstab", Spec: "PARTLABEL=y"},
				{File: "etc/fstab", Spec: "PARTUUID=696d676d-01", Needed: true},
			}},
		{"fstab, quoted", "etc/fstab", "UUID=\"1A2B-3C4D\"\t/boot/efi\tvfat\n", needed("etc/fstab", "UUID=1A2B-3C4D")},
		{"fstab, with escapes", "etc/fstab", `PARTUUID=696d676d\05501 / ext4` + "\n" +
			`/dev/disk/by\055partuuid/696d676d-02 /a ext4` + "\n" + `\114ABEL=my\040disk /b ext4` + "\n" +
			`/dev/disk/by-label/my\x20disk /c ext4` + "\n" + `server:/LABEL=x /d nfs` + "\n",
			needed("etc/fstab", "PARTUUID=696d676d-01", "PARTUUID=696d676d-02", "LABEL=my disk", "LABEL=my disk")},
		{"fstab, of what no volume is called", "etc/fstab",
			"UUID=$x / ext4\n" + `PARTUUID=a\b /b ext4` + "\nLABEL= /c ext4\n",
			needed("etc/fstab", "UUID=$x", `PARTUUID=a\b`, "LABEL=")},
		{"rEFInd", "boot/refind_linux.conf", `"Boot" "root=PARTUUID=696d676d-01 ro"` + "\n",
			needed("boot/refind_linux.conf", "PARTUUID=696d676d-01")},
		{"rEFInd on a volume for /boot", "refind_linux.conf", `"Boot" "root=LABEL=a"` + "\n",
			needed("refind_linux.conf", "LABEL=a")},
		{"crypttab", "etc/crypttab",
			"# UUID=no\nhome UUID=" + uuid + " none luks\nswap /dev/disk/by-label/swap /dev/urandom swap\n",
			needed("etc/crypttab", "UUID="+uuid, "LABEL=swap")},
		{"kernel command line", "etc/kernel/cmdline",
			"root=PARTUUID=" + uuid + " ro rootflags=subvol=@ resume=UUID=1A2B-3C4D\n",
			needed("etc/kernel/cmdline", "PARTUUID="+uuid, "UUID=1A2B-3C4D")},
		{"loader entry", "loader/entries/a.conf",
			"title Debian\n# options root=UUID=no\noptions root=LABEL=root quiet root=LABEL=root\n",
			needed("loader/entries/a.conf", "LABEL=root")},
		{"loader entry in /boot", "boot/loader/entries/b.conf", "options \"root=LABEL=a b\" x\n",
			needed("boot/loader/entries/b.conf", "LABEL=a")},
		{"quoted value", "etc/default/grub", "GRUB_CMDLINE_LINUX='root=LABEL=\"a b\"'\n",
			needed("etc/default/grub", "LABEL=a b")},
		{"drop-in of grub's defaults", "etc/default/grub.d/50-cloud.cfg", "GRUB_CMDLINE_LINUX=\"root=UUID=" + uuid + "\"\n",
			needed("etc/default/grub.d/50-cloud.cfg", "UUID="+uuid)},
		{"grub", "boot/grub/grub.cfg", "if [ x = y ]; then\n" +
			"  search --no-floppy --fs-uuid --set=root --hint-efi=hd0,gpt2 --hint='hd0,gpt2'  " + uuid + "\nfi\n" +
			"\tlinux /vmlinuz root=UUID=" + uuid + " ro\n",
			needed("boot/grub/grub.cfg", "UUID="+uuid)},
		{"grub, fs-uuid last", "grub2/grub.cfg", "search --set=root --fs-uuid 1A2B-3C4D\n",
			needed("grub2/grub.cfg", "UUID=1A2B-3C4D")},
		{"grub's stub in an ESP", "EFI/debian/grub.cfg",
			"search.fs_uuid " + uuid + " root hd0,gpt2\nset prefix=($root)'/boot/grub'\n",
			needed("EFI/debian/grub.cfg", "UUID="+uuid)},
		{"variables", "boot/grub2/grub.cfg",
			"search --fs-uuid --set=root $BOOT_UUID\nlinux /v root=UUID=${BOOT_UUID} a=UUID=$x b=LABEL=`c`\n", nil},
		{"other words", "etc/kernel/cmdline", "BOOT_UUID=a rd.luks.uuid=b MYLABEL=c", nil},
		{"extlinux", "extlinux/extlinux.conf", "append root=PARTUUID=696d676d-01\n",
			needed("extlinux/extlinux.conf", "PARTUUID=696d676d-01")},
		{"Raspberry Pi", "cmdline.txt", "root=PARTUUID=696d676d-02 rootwait", needed("cmdline.txt", "PARTUUID=696d676d-02")},
		{"grub's environment", "boot/grub2/grubenv",
			"# GRUB Environment Block\nkernelopts=root=UUID=" + uuid + " ro \n#####",
			needed("boot/grub2/grubenv", "UUID="+uuid)},
		{"mount unit", "etc/systemd/system/srv.mount", "[Mount]\nWhat=/dev/disk/by-partuuid/696d676d-02\n",
			[]refs.Reference{{File: "etc/systemd/system/srv.mount", Spec: "PARTUUID=696d676d-02"}}},
		{"another file", "etc/motd", "UUID=" + uuid, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := references(t, refs.Files{FS: fstest.MapFS{tc.file: file(tc.text)}})
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("References (-want +got):\n%s", diff)
			}
		})
	}
}

// TestReferencesOfAllFiles: each file is looked into, whatever comes before it.
func TestReferencesOfAllFiles(t *testing.T) {
	files := fstest.MapFS{
		"etc/fstab":                  file("LABEL=a / ext4\n"),
		"etc/kernel/cmdline":         file("root=LABEL=b"),
		"loader/entries/x.conf":      file("options root=LABEL=c\n"),
		"boot/cmdline.txt":           {Mode: fs.ModeDir | 0o755},
		"etc/systemd/system/a.mount": file("[Mount]\nWhat=LABEL=d\n"),
	}
	var got []string
	for _, r := range references(t, refs.Files{FS: files}) {
		got = append(got, r.Spec)
	}
	if want := []string{"LABEL=a", "LABEL=b", "LABEL=c", "LABEL=d"}; !slices.Equal(got, want) {
		t.Errorf("References = %q, want %q", got, want)
	}
}

func TestRenameRefusesWhatIsTooLarge(t *testing.T) {
	files := fstest.MapFS{"boot/grub/grub.cfg": {Data: make([]byte, 8<<20+1), Mode: 0o644}}
	err := refs.Files{FS: files}.Rename(t.Context(), refs.Names{}, func(refs.Patch) error { return nil })
	if fault.Of(err) != fault.Image || !strings.Contains(err.Error(), "boot/grub/grub.cfg has 8388609 bytes") {
		t.Errorf("Rename = %v, want one about the image", err)
	}
}

// TestRenameInTheLargestFile: what is just not too large is changed.
func TestRenameInTheLargestFile(t *testing.T) {
	text := make([]byte, 8<<20)
	copy(text[len(text)-21:], " PARTUUID=696d676d-01")
	got := rename(t, fstest.MapFS{"boot/grub/grub.cfg": {Data: text, Mode: 0o644}},
		map[string]string{"696d676d-01": "12345678-01"})
	if !strings.HasSuffix(got["boot/grub/grub.cfg"], "=12345678-01") {
		t.Error("it was not changed")
	}
}

// TestBounds: what a stranger's volume holds costs neither memory nor time.
func TestBounds(t *testing.T) {
	entries := func(n int, size int) fstest.MapFS {
		files := fstest.MapFS{}
		for i := range n {
			files[fmt.Sprintf("boot/loader/entries/%d.conf", i)] = &fstest.MapFile{Data: make([]byte, size), Mode: 0o644}
		}
		return files
	}
	for _, tc := range []struct {
		name  string
		files fstest.MapFS
		want  string // in the error, none if empty
	}{
		{"many", entries(200, 100), ""},
		{"as much as is looked into", entries(4, 8<<20), ""},
		{"more bytes", entries(5, 8<<20), "more than 32 MiB"},
		{"as many files", entries(1024, 0), ""},
		{"more files", entries(1025, 0), "more than 1024 files"},
		{"more entries", entries(4097, 0), "more than 4096 entries"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := refs.Files{FS: tc.files}
			_, err := f.References(t.Context())
			renameErr := f.Rename(t.Context(), refs.Names{}, func(refs.Patch) error { return nil })
			for _, err := range []error{err, renameErr} {
				refused := fault.Of(err) == fault.Image && strings.Contains(err.Error(), tc.want)
				if tc.want == "" && err != nil || tc.want != "" && !refused {
					t.Errorf("error %v, want %q", err, tc.want)
				}
			}
		})
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := (refs.Files{FS: entries(2, 0)}).References(ctx); !errors.Is(err, cause) {
		t.Errorf("interrupted, and References = %v", err)
	}
}

// TestReferencesInNoFile: what has the name of such a file or directory and is
// none says nothing.
func TestReferencesInNoFile(t *testing.T) {
	for name, f := range map[string]refs.Files{
		"a link to nowhere":         {FS: fstest.MapFS{"boot/loader/entries/a.conf": {Data: []byte("b"), Mode: fs.ModeSymlink}}},
		"a large pipe":              {FS: fstest.MapFS{"boot/loader/entries/a.conf": {Data: make([]byte, 9<<20), Mode: fs.ModeNamedPipe}}},
		"a file for a directory":    {FS: fstest.MapFS{"boot/loader/entries": file("UUID=x")}},
		"a file for one, on a FAT":  {FS: fstest.MapFS{"EFI": file("UUID=x")}, FAT: true},
		"a directory for a file":    {FS: fstest.MapFS{"etc/fstab/UUID=x": file("UUID=x")}},
		"a file in another's place": {FS: fstest.MapFS{"loader/x.conf": file("UUID=x")}},
	} {
		if found := references(t, f); len(found) > 0 {
			t.Errorf("%s: %v", name, found)
		}
	}
}

// TestReferencesOnOneLine are all found, of each form.
func TestReferencesOnOneLine(t *testing.T) {
	files := fstest.MapFS{"boot/grub/grub.cfg": file("a /dev/disk/by-uuid/11 b /dev/disk/by-uuid/22 UUID=33 c=LABEL=d UUID=44\n" +
		"search.fs_uuid 1A2B-3C4D root; search.fs_uuid 5E6F-7A8B root\n")}
	got := map[string]bool{}
	for _, r := range references(t, refs.Files{FS: files}) {
		got[r.Spec] = true
	}
	for _, want := range []string{"UUID=11", "UUID=22", "UUID=33", "UUID=44", "LABEL=d", "UUID=1A2B-3C4D", "UUID=5E6F-7A8B"} {
		if !got[want] {
			t.Errorf("%s is not found, but %v", want, got)
		}
	}
}

// TestReferencesInFAT: names in FAT are found in any letter case.
func TestReferencesInFAT(t *testing.T) {
	files := fstest.MapFS{"EFI/REDHAT/GRUB.CFG": file("search.fs_uuid 1A2B-3C4D root\n"),
		"Loader/Entries/a.Conf": file("options root=LABEL=x\n")}
	want := []refs.Reference{{File: "Loader/Entries/a.Conf", Spec: "LABEL=x", Needed: true},
		{File: "EFI/REDHAT/GRUB.CFG", Spec: "UUID=1A2B-3C4D", Needed: true}}
	if diff := cmp.Diff(want, references(t, refs.Files{FS: files, FAT: true})); diff != "" {
		t.Errorf("References (-want +got):\n%s", diff)
	}
	if got := references(t, refs.Files{FS: files}); len(got) > 0 {
		t.Errorf("References of ext4 = %v, want none", got)
	}
}

// rename gives the files that Rename changes, as they become.
func rename(t *testing.T, files fs.FS, uuids map[string]string) map[string]string {
	t.Helper()
	written := map[string]string{}
	err := refs.Files{FS: files}.Rename(t.Context(), refs.Names{Partitions: uuids}, func(p refs.Patch) error {
		b := []byte(written[p.File])
		if len(b) == 0 {
			var err error
			if b, err = fs.ReadFile(files, p.File); err != nil {
				return err
			}
		}
		copy(b[p.Offset:p.Offset+int64(len(p.Bytes))], p.Bytes)
		written[p.File] = string(b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return written
}

func TestRename(t *testing.T) {
	const a, b, other = "3f519074-8e2c-4da0-b143-2c7ea5f90803", "2e408f63-7d1b-4c9f-a032-1b6d94e8f702",
		"5173b296-a04e-4fc2-9365-4e90c71b2a05"
	for _, tc := range []struct {
		name, in, want string
		uuids          map[string]string
	}{
		{"in any letter case", "PARTUUID=" + a + " PARTUUID=" + strings.ToUpper(a), "PARTUUID=" + b + " PARTUUID=" + b,
			map[string]string{a: b}},
		{"quoted", `PARTUUID="` + a + `" PARTUUID='` + a + `'`, `PARTUUID="` + b + `" PARTUUID='` + b + `'`,
			map[string]string{a: b}},
		{"nothing else", "UUID=" + other + " /dev/disk/by-partuuid/" + a + "\r\n",
			"UUID=" + other + " /dev/disk/by-partuuid/" + b + "\r\n", map[string]string{a: b}},
		{"swapped", "PARTUUID=" + a + " PARTUUID=" + b, "PARTUUID=" + b + " PARTUUID=" + a, map[string]string{a: b, b: a}},
		{"a partition after it", "root=PARTUUID=" + a + "/PARTNROFF=1", "root=PARTUUID=" + b + "/PARTNROFF=1",
			map[string]string{a: b}},
		{"part of a longer word", "PARTUUID=" + a + "0 PARTUUID=0" + a, "", map[string]string{a: b}},
		{"of an MBR", "root=PARTUUID=696d676d-01 PARTUUID=696D676D-02 PARTUUID=696d676d-010",
			"root=PARTUUID=12345678-01 PARTUUID=12345678-02 PARTUUID=696d676d-010",
			map[string]string{"696d676d-01": "12345678-01", "696d676d-02": "12345678-02"}},
		{"the first group alone is no MBR's", "PARTUUID=696d676d-01ab-4000-8000-000000000000", "",
			map[string]string{"696d676d-01": "12345678-01"}},
		{"bytes that are no text", "\xff\x00PARTUUID=" + a + "\xfe", "\xff\x00PARTUUID=" + b + "\xfe",
			map[string]string{a: b}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := map[string]string{"etc/fstab": tc.want, "loader/entries/x.conf": tc.want}
			if tc.want == "" {
				clear(want) // what does not change is not written
			}
			got := rename(t, fstest.MapFS{"etc/fstab": file(tc.in), "loader/entries/x.conf": file(tc.in),
				"srv/motd": file(tc.in)}, tc.uuids)
			if !maps.Equal(got, want) {
				t.Errorf("Rename writes %q, want %q", got, want)
			}
		})
	}
}

// TestRenameElsewhere: a text that is read at boot is changed whatever its name is,
// and nothing else.
func TestRenameElsewhere(t *testing.T) {
	const a, b = "3f519074-8e2c-4da0-b143-2c7ea5f90803", "2e408f63-7d1b-4c9f-a032-1b6d94e8f702"
	for name, tc := range map[string]struct{ in, want string }{
		"boot/uEnv.txt":                          {"optargs=root=PARTUUID=" + a, "optargs=root=PARTUUID=" + b},
		"boot/dietpiEnv.txt":                     {"rootdev=PARTUUID=" + a, "rootdev=PARTUUID=" + b},
		"etc/default/limine":                     {`X="root=PARTUUID=` + a + `"`, `X="root=PARTUUID=` + b + `"`},
		"etc/kernel/uki.conf":                    {"[UKI]\nCmdline=root=PARTUUID=" + a, "[UKI]\nCmdline=root=PARTUUID=" + b},
		"boot/limine.conf":                       {"path: guid(" + a + "):/vmlinuz", "path: guid(" + b + "):/vmlinuz"},
		"etc/initramfs-tools/conf.d/resume":      {"RESUME=PARTUUID=" + a, "RESUME=PARTUUID=" + b},
		"usr/lib/systemd/system/a.service.d/b":   {"ExecStart=/a /dev/disk/by-partuuid/" + a, "ExecStart=/a /dev/disk/by-partuuid/" + b},
		"usr/lib/udev/rules.d/1.rules":           {"PROGRAM=PARTUUID=" + a, "PROGRAM=PARTUUID=" + b},
		"usr/lib/bootc/kargs.d/1.toml":           {"PARTUUID=" + a, "PARTUUID=" + b},
		"etc/x/y/z":                              {"UUID=" + a, "UUID=" + b},
		"boot/boot.scr":                          {"\x27\x05\x19\x56\x00PARTUUID=" + a, ""}, // it has a checksum
		"usr/share/doc/x":                        {"PARTUUID=" + a, ""},
		"etc/alternatives/x":                     {"PARTUUID=" + a, ""},
		"usr/lib/systemd/systemd-that-is-of-any": {"PARTUUID=" + a, ""},
	} {
		if got := rename(t, fstest.MapFS{name: file(tc.in)}, map[string]string{a: b})[name]; got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
	if got := rename(t, fstest.MapFS{}, map[string]string{a: b}); len(got) > 0 {
		t.Errorf("nothing: %q", got)
	}
	whole := fstest.MapFS{"any/text": file("PARTUUID=" + a)}
	changed := 0
	names := refs.Names{Partitions: map[string]string{a: b}}
	err := refs.Files{FS: whole, Whole: true}.Rename(t.Context(), names, func(refs.Patch) error { changed++; return nil })
	if err != nil || changed != 1 {
		t.Errorf("a volume that is read as a whole: %v, %d changes", err, changed)
	}
}

// TestRenameRefusesWhatIsSigned: GRUB would not read the text.
func TestRenameRefusesWhatIsSigned(t *testing.T) {
	const a, b = "3f519074-8e2c-4da0-b143-2c7ea5f90803", "2e408f63-7d1b-4c9f-a032-1b6d94e8f702"
	for _, in := range []string{"PARTUUID=" + a, "UUID=5173b296-a04e-4fc2-9365-4e90c71b2a05"} {
		files := fstest.MapFS{"boot/grub/grub.cfg": file(in), "boot/grub/grub.cfg.sig": file("x")}
		err := refs.Files{FS: files}.Rename(t.Context(), refs.Names{Partitions: map[string]string{a: b}}, func(refs.Patch) error {
			t.Error("it is changed")
			return nil
		})
		refused := fault.Of(err) == fault.Image && strings.Contains(err.Error(), "boot/grub/grub.cfg is signed by boot/grub/grub.cfg.sig")
		if refused != (in[0] == 'P') || !refused && err != nil {
			t.Errorf("%s: %v", in, err)
		}
	}
}

// TestRenameInFstab: an fstab may write any byte as an octal number. Each keeps
// its form, and the file its length.
func TestRenameInFstab(t *testing.T) {
	uuids := map[string]string{"696d676d-01": "12345678-01"}
	for in, want := range map[string]string{
		`PARTUUID=696d676d\05501 / ext4`:                    `PARTUUID=12345678\05501 / ext4`,
		`/dev/disk/by\055partuuid/\066\0716d676d-01 /a xfs`: `/dev/disk/by\055partuuid/\061\062345678-01 /a xfs`,
		`\120ARTUUID=696D676D-01 /my\040disk ext4 x=\134`:   `\120ARTUUID=12345678-01 /my\040disk ext4 x=\134`,
		`tmpfs /x tmpfs x=/dev/disk/by-partuuid\057696d676d-01,size=1`: `tmpfs /x tmpfs ` +
			`x=/dev/disk/by-partuuid\05712345678-01,size=1`,
		`LABEL=696d676d\05501 / ext4`: "",
	} {
		if want != "" {
			want = "# \\055\n" + want + "\n"
		}
		got := rename(t, fstest.MapFS{"etc/fstab": file("# \\055\n" + in + "\n")}, uuids)["etc/fstab"]
		if got != want {
			t.Errorf("Rename of %s writes %q, want %q", in, got, want)
		}
	}
	const plain = `title PARTUUID=696d676d\05501`
	if got := rename(t, fstest.MapFS{"loader/entries/a.conf": file(plain)}, uuids); len(got) > 0 {
		t.Errorf("Rename of a file in which that is no escape writes %q", got)
	}
}
