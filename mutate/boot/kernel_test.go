package boot

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/imgmut/imgmut/fixtures"
)

// bzImage makes the start of a kernel for x86 that says its version at a place.
func bzImage(at uint16, version string) []byte {
	b := make([]byte, 0x200+int(at)+256)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x20e:], at)
	copy(b[0x200+int(at):], version+"\x00")
	return b
}

func TestKernelVersion(t *testing.T) {
	const said = "6.1.0-13-amd64 (debian-kernel@lists.debian.org) #1 SMP"
	for _, tc := range []struct {
		name, file string
		kernel     []byte
		entry      string // its version
		want       string
	}{
		{"by its header", "vmlinuz", bzImage(0x3000, said), "", "6.1.0-13-amd64"},
		{"its header before its name", "vmlinuz-6.1.0-12-amd64", bzImage(0x3000, said), "6.1.0-11", "6.1.0-13-amd64"},
		{"its name", "vmlinuz-6.1.0-12-amd64", []byte("x"), "6.1.0-11", "6.1.0-12-amd64"},
		{"the directory", "0123/6.12.1/linux", []byte("x"), "", "6.12.1"},
		{"behind a machine-id", "kernel-0123456789abcdef0123456789abcdef-6.2", []byte("x"), "", "6.2"},
		{"the entry", "vmlinuz-linux", []byte("x"), "6.1.0-11", "6.1.0-11"},
		{"an entry that says a sentence", "vmlinuz-linux", []byte("x"), "6.1 of today", ""},
		{"nothing", "vmlinuz-virt", []byte("x"), "", ""},
		{"a header that is cut", "vmlinuz", bzImage(0x3000, said)[:0x20f], "", ""},
		{"a header that leads out of the file", "vmlinuz", bzImage(0x3000, said)[:0x3000], "", ""},
		{"a header that says no version", "vmlinuz", bzImage(0x100, "../../etc"), "", ""},
		{"a version that is a path", "vmlinuz-6.1/../../etc", nil, "", ""},
	} {
		tree := fstest.MapFS{"loader/entries/a.conf": {Data: []byte("linux /" + tc.file + "\nversion " + tc.entry + "\n")}}
		if tc.kernel != nil {
			tree[tc.file] = &fstest.MapFile{Data: tc.kernel}
		}
		entries, err := Entries([]Place{{At: "/boot", FS: tree}})
		if err != nil || len(entries) != 1 || entries[0].Version != tc.want {
			t.Errorf("%s: %+v, %v; want version %q", tc.name, entries, err, tc.want)
		}
	}
}

func TestCompareVersions(t *testing.T) {
	want := []string{"", "0-rescue", "6.1.0-9-amd64", "6.1.0-10-amd64", "6.1.0-10-cloud-amd64", "6.9.12-200.fc40", "6.10.3-200.fc40",
		"6.12~rc1-1", "6.12-1", "6.12.1", "6.12.1-1~bpo12+1", "6.12.1-1"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, CompareVersions)
	if !slices.Equal(got, want) {
		t.Errorf("sorted %q, want %q", got, want)
	}
}

// TestUKI: a unified kernel image is an entry by itself, also one of another case
// and one that firmware starts; its version is what it says.
func TestUKI(t *testing.T) {
	const os = "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"
	files := fstest.MapFS{
		"EFI/Linux/debian-6.1.0-13+3.efi": {Data: fixtures.UKI(".osrel", os, ".linux", "kernel", ".uname", "6.1.0-13-amd64",
			".cmdline", "ro quiet\n")},
		"EFI/Linux/debian-6.1.0-13.efi.extra.d/a.addon.efi": {Data: fixtures.UKI(".cmdline", "console=ttyS0")},
		"EFI/Linux/debian-6.1.0-12.EFI":                     {Data: fixtures.UKI(".osrel", os, ".linux", "kernel", ".cmdline", "root=UUID=x")},
		"EFI/Linux/text.efi":                                {Data: []byte("no program")},
		"EFI/BOOT/BOOTX64.EFI":                              {Data: fixtures.UKI(".linux", string(bzImage(0x20, "6.1.0-11")))},
		"EFI/systemd/systemd-bootx64.efi":                   {Data: fixtures.UKI(".osrel", os)},
	}
	modules := fstest.MapFS{"usr/lib/modules/6.1.0-13-amd64/modules.dep": {}, "usr/lib/modules/6.1.0-12/modules.dep": {}}
	in := []Place{{At: "/", FS: modules}, {At: "/efi", FS: files}}
	entries, err := Entries(in)
	if err != nil {
		t.Fatal(err)
	}
	const want = `* uki /efi/EFI/Linux/debian-6.1.0-13+3.efi id="debian-6.1.0-13.efi" title="Debian GNU/Linux 12" version=6.1.0-13-amd64
	 []
	ro quiet console=ttyS0
* uki /efi/EFI/BOOT/BOOTX64.EFI id="BOOTX64.EFI" title="" version=6.1.0-11
	 []
	
  uki /efi/EFI/Linux/debian-6.1.0-12.EFI id="debian-6.1.0-12.EFI" title="Debian GNU/Linux 12" version=6.1.0-12
	 []
	root=UUID=x
`
	if got := describe(entries); got != want {
		t.Errorf("entries:\n%s, want\n%s", got, want)
	}
	findings := told(Read(in).Judge(isRoot))
	for _, want := range []string{
		"note: /efi/EFI/Linux/debian-6.1.0-12.EFI starts another system",
		"wrong: /efi/EFI/BOOT/BOOTX64.EFI starts kernel 6.1.0-11, whose modules are not there",
	} {
		if !strings.Contains(findings, want) {
			t.Errorf("it does not tell %q, but:\n%s", want, findings)
		}
	}
}
