package refs_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/refs"
)

// FuzzReferences: Rename without names changes nothing, there and back gives
// the text again, and what is said to be named is in the text.
func FuzzReferences(f *testing.F) {
	const old, fresh = "3f519074-8e2c-4da0-b143-2c7ea5f90803", "00000000-1111-4222-8333-444444444444"
	for _, seed := range []string{
		"options root=PARTUUID=" + old + " ro\n", "search --no-floppy --fs-uuid --set=root 1A2B-3C4D\n",
		"search.fs_uuid " + old + " root\n",
		"LABEL=\"a b\" /dev/disk/by-label/x PARTLABEL='y' UUID=$z\n",
		"PARTUUID=" + strings.ToUpper(old) + "-01 " + old + old, "# UUID=x\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		const name = "boot/grub/grub.cfg"
		files := fstest.MapFS{name: file(text)}
		if got := rename(t, files, nil); len(got) > 0 {
			t.Fatalf("Rename without names writes %q", got)
		}
		if !strings.Contains(strings.ToLower(text), fresh) {
			there, ok := rename(t, files, map[string]string{old: fresh})[name]
			if ok {
				back := rename(t, fstest.MapFS{name: file(there)}, map[string]string{fresh: old})[name]
				if !sameButCase(back, text) {
					t.Fatalf("there and back: %q, was %q", back, text)
				}
			}
		}
		for _, ref := range references(t, refs.Files{FS: files}) {
			key, value, ok := strings.Cut(ref.Spec, "=")
			if !ok || value == "" || !strings.Contains(text, value) || strings.ContainsAny(value, "$`\\\n") {
				t.Fatalf("Spec %q of %q", ref.Spec, text)
			}
			switch key {
			case "UUID", "LABEL", "PARTUUID", "PARTLABEL":
			default:
				t.Fatalf("key of %q", ref.Spec)
			}
		}
	})
}

// sameButCase compares bytes and takes ASCII letters of both cases for equal:
// Rename finds a UUID in any case.
func sameButCase(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if a[i] != b[i] && !strings.EqualFold(a[i:i+1], b[i:i+1]) {
			return false
		}
	}
	return true
}

// FuzzRenameInFstab: an fstab keeps its length, and what it says to mount changes
// only as the same text without escapes does.
func FuzzRenameInFstab(f *testing.F) {
	uuids := map[string]string{"3f519074-8e2c-4da0-b143-2c7ea5f90803": "00000000-1111-4222-8333-444444444444"}
	for _, seed := range []string{
		`PARTUUID=3f519074\0558e2c-4da0-b143-2c7ea5f90803 / ext4`, `/dev/disk/by\055partuuid/\063f519074-8e2c \777 \40 \`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := rename(t, fstest.MapFS{"etc/fstab": file(text)}, uuids)["etc/fstab"]
		if !ok {
			return
		}
		if len(got) != len(text) {
			t.Fatalf("%q has another length than %q", got, text)
		}
		before, after := etc.ParseFstab(text), etc.ParseFstab(got)
		if len(before) != len(after) {
			t.Fatalf("%q has other lines than %q", got, text)
		}
		for i, m := range before {
			plain := rename(t, fstest.MapFS{"cmdline.txt": file(m.What)}, uuids)
			if want, ok := plain["cmdline.txt"]; ok && want != after[i].What || !ok && m.What != after[i].What {
				t.Fatalf("%q becomes %q", m.What, after[i].What)
			}
		}
	})
}

// FuzzRenameFilesystems: what was renamed is not found afterwards where a text says
// what it is, and what says nothing of a volume stays.
func FuzzRenameFilesystems(f *testing.F) {
	const fs, label = "3f519074-8e2c-4da0-b143-2c7ea5f90803", "my-root"
	names := refs.Names{
		Filesystems: map[string]string{fs: "00000000-1111-4222-8333-444444444444", "1a2b-3c4d": "5E6F-7A8B"},
		Labels:      map[string]string{label: "another"},
	}
	for _, seed := range []string{
		"UUID=" + fs + " LABEL=my-root,x", "search --fs-uuid --set=root 1A2B-3C4D\n", "search --label my-root root\n",
		`dev-disk-by\x2dlabel-my\x2droot.device dev-disk-by\x2duuid-1a2b\x2d3c4d.device`, "LABEL=LABEL=my-root LABEL=my-rootLABEL=my-root",
		"LULABEL=my-root LABEL=my-root\\", "LABEL=my-root\\\n", `by\x2dlabel-my\x2droot\x2dmore.device`,
		`by\x2dLabel-my\x2droot is no link, nor is /dev/disk/BY-LABEL/my-root`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		const name = "boot/any"
		err := refs.Files{FS: fstest.MapFS{name: file(text)}}.Rename(t.Context(), names, func(p refs.Patch) error {
			text = string(p.Bytes)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		packed := func(r rune) bool {
			return r < ' ' && r != '\n' && r != '\t' || r > '~' || strings.ContainsRune("(M7", r)
		}
		if strings.ContainsFunc(text, packed) { // it may be taken for an archive
			return
		}
		search := refs.Search{Filesystems: []string{"1a2b-3c4d"}, Labels: []string{label}}
		if r := scan(t, refs.Files{FS: fstest.MapFS{name: file(text)}}, search); len(r.Found) > 0 {
			t.Fatalf("%+v is left in %q", r.Found, text)
		}
	})
}
