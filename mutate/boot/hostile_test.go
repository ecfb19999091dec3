package boot

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/imgmut/imgmut/fixtures"
)

// TestBounds: what is too much is said, and costs little.
func TestBounds(t *testing.T) {
	many := func(format string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	doubling := "a=xxxxxxxxxxxxxxxx\n" + strings.Repeat("a=$a$a\n", 1000) + strings.Repeat("b=\"$a$a$a$a$a$a$a$a\"\n", 40000)
	uki := fixtures.UKI(".linux", "x")
	for _, tc := range []struct {
		name, want string // in the error
		files      map[string]string
		n          int // of entries
	}{
		{"entries", "more than 1024 entries", map[string]string{"boot/grub/grub.cfg": many("menuentry %d {\nlinux /v\n}\n", 1025)}, 1024},
		{"kernels of one entry", "more than 1024 entries",
			map[string]string{"boot/grub/grub.cfg": "menuentry a {\n" + strings.Repeat("linux /v\n", 1025) + "}"}, 1024},
		{"labels", "more than 1024 entries", map[string]string{"boot/extlinux.conf": many("LABEL %d\nLINUX v\n", 1025)}, 0},
		{"initrds", "more than 64 initrds",
			map[string]string{"boot/grub/grub.cfg": "menuentry a {\nlinux /v\ninitrd" + strings.Repeat(" /i", 1000) + "\n}"}, 1},
		{"initrds of extlinux", "more than 64 initrds",
			map[string]string{"boot/extlinux.conf": "LABEL a\nLINUX v\nINITRD i" + strings.Repeat(",i", 500000)}, 1},
		{"names of files", "name more than 8192 files",
			map[string]string{"boot/grub/grub.cfg": "menuentry a {\nlinux /v\n" + strings.Repeat("initrd /i\n", 100000) + "}"}, 1},
		{"variables", "more than 8 MiB", map[string]string{"boot/grub/grub.cfg": doubling + "menuentry a {\nlinux /v\n}\n"}, 0},
		{"a file", "/boot/grub/grub.cfg has more than 1 MiB", map[string]string{"boot/grub/grub.cfg": strings.Repeat("#", maxFile+1)}, 0},
		{"commands for loader entries", "", map[string]string{"boot/grub/grub.cfg": strings.Repeat("blscfg\n", 140000),
			"boot/loader/entries/a.conf": "linux /v"}, 1},
		{"conditions", "more than 8 MiB", map[string]string{"boot/grub/grub.cfg": strings.Repeat("if\n", 100) + many("v%d=x\n", 80000) +
			strings.Repeat("else\nfi\n", 100) + "linux /v\n"}, 0},
		{"blocks", "", map[string]string{"boot/grub/grub.cfg": strings.Repeat("submenu a {\n", 80000) + "linux /v\n"}, 1},
		{"a configuration that goes on with itself", "", map[string]string{
			"boot/grub/grub.cfg": "source /boot/grub/grub.cfg\nconfigfile /boot/grub/a\n", "boot/grub/a": "configfile /boot/grub/grub.cfg\n"}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			started := time.Now()
			in := []Place{{At: "/", FS: tree(tc.files)}}
			entries, err := Entries(in)
			if tc.want == "" && err != nil || tc.want != "" && !strings.Contains(fmt.Sprint(err), tc.want) {
				t.Errorf("Entries = %v, want %q", err, tc.want)
			}
			if len(entries) != tc.n {
				t.Errorf("%d entries, want %d", len(entries), tc.n)
			}
			findings := Read(in).Judge(isRoot)
			if tc.want != "" && !strings.Contains(told(findings), "wrong: what boots cannot be told: ") {
				t.Errorf("Judge does not say so: %s", told(findings))
			}
			if took := time.Since(started); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	programs := fstest.MapFS{}
	for i := range maxPrograms + 1 {
		programs[fmt.Sprintf("EFI/%d/%d.efi", i%2, i)] = &fstest.MapFile{Data: uki}
	}
	if entries, err := Entries([]Place{{FS: programs}}); err == nil || len(entries) != maxPrograms {
		t.Errorf("%d entries of too many programs, %v", len(entries), err)
	}
}

// TestManyFindings: the list ends, and says so.
func TestManyFindings(t *testing.T) {
	var b strings.Builder
	for i := range 500 {
		fmt.Fprintf(&b, "menuentry a {\nlinux /vmlinuz-a%db%s root=LABEL=root\n}\n", i, strings.Repeat("x", 2000))
	}
	in := []Place{{At: "/", FS: tree(map[string]string{"boot/grub/grub.cfg": b.String()})}}
	_, err := Entries(in)
	if err != nil {
		t.Fatal(err)
	}
	found := Read(in).Judge(isRoot)
	if n := len(found); n != maxFindings+1 || found[n-1].Note || !strings.Contains(found[n-1].What, "more to tell") {
		t.Errorf("%d findings, the last is %+v", n, found[n-1])
	}
	if n := len(found[0].What); n > maxWhat {
		t.Errorf("a finding of %d bytes", n)
	}
}

// TestKey: a finding is the same in every image that has it.
func TestKey(t *testing.T) {
	key := func(what string) string { return Finding{What: what}.Key() }
	same := []string{
		"/boot/grub/grub.cfg:12 names UUID=aaaaaaaa-1111-4111-8111-111111111111",
		"/boot/grub/grub.cfg:130 names UUID=BBBBBBBB-1111-4111-8111-111111111111",
		"/boot/grub/grub.cfg:1 names UUID=1A2B-3C4D", "/boot/grub/grub.cfg:1 names UUID=12345678-02",
		"/boot/grub/grub.cfg:1 names UUID=0123456789abcdef0123456789abcdef",
	}
	for _, s := range same {
		if key(s) != key(same[0]) {
			t.Errorf("%q has the key %q, not %q", s, key(s), key(same[0]))
		}
	}
	for _, other := range []string{"/boot/vmlinuz-6.1.0-12", "/boot/vmlinuz-6.1.0-13", "/boot/grub/grub.cfg:1 names LABEL=a"} {
		if key(other) == key(same[0]) || key(other) != other && !strings.Contains(other, ":") {
			t.Errorf("%q has the key %q", other, key(other))
		}
	}
}

// FuzzEntries: whatever the files hold, each entry is something that can be
// looked for and shown, each finding is one line, and the answer is one answer.
func FuzzEntries(f *testing.F) {
	f.Add("menuentry 'a' --id b {\nlinux /v root=$x ro\ninitrd /i $j\n}\nset default=\"${saved_entry}\"\n", "linux /v\ninitrd /i\n",
		"DEFAULT a\nLABEL a\nLINUX v\nAPPEND initrd=i ro\n", "[pi4]\nkernel=v\ninitramfs i\n", "vmlinuz")
	f.Add("search.fs_uuid 1A2B-3C4D root\nset prefix=($root)'/grub'\nconfigfile $prefix/grub.cfg\nblscfg", "efi /x", "", "auto_initramfs=1",
		string(bzImage(0x10, "6.1.0-13")))
	f.Add("submenu \"a\\\"b\" { menuentry c { multiboot2 /x; module2 /v; module2 /i } }", "", "label a\nmenu label b\nkernel x.c32", "", "")
	f.Fuzz(func(t *testing.T, grub, entry, extlinux, config, kernel string) {
		root := tree(map[string]string{"boot/grub/grub.cfg": grub, "boot/extlinux.conf": extlinux, "boot/vmlinuz-6.1": kernel,
			"boot/grub/grubenv": "saved_entry=1\n", "v": kernel})
		esp := tree(map[string]string{"EFI/x/grub.cfg": grub, "loader/entries/a+1.conf": entry, "config.txt": config, "cmdline.txt": "ro",
			"kernel8.img": kernel, "EFI/Linux/a.efi": kernel})
		in := []Place{{At: "/", FS: root, UUID: rootUUID}, {FS: esp, UUID: "1A2B-3C4D"}}
		entries, err := Entries(in)
		for i, e := range entries {
			if clean(e.Options) != e.Options || e.Version != "" && !release().MatchString(e.Version) || e.Loader == "" || e.File == "" {
				t.Errorf("%+v", e)
			}
			for _, name := range append([]string{e.Kernel}, e.Initrds...) {
				if name != "" && name[0] != '/' && name[0] != '(' {
					t.Errorf("a file %q of %+v", name, e)
				}
			}
			if e.Default && i > 0 && !entries[i-1].Default {
				t.Error("a default is not among the first")
			}
		}
		findings := Read(in).Judge(isRoot)
		for _, found := range findings {
			if !utf8.ValidString(found.What) || strings.ContainsFunc(found.What, unicode.IsControl) || found.What == "" || found.Key() == "" {
				t.Errorf("%+v", found)
			}
		}
		again, errAgain := Entries(in)
		if !reflect.DeepEqual(again, entries) || fmt.Sprint(err) != fmt.Sprint(errAgain) ||
			!reflect.DeepEqual(Read(in).Judge(isRoot), findings) {
			t.Error("another answer the second time")
		}
	})
}
