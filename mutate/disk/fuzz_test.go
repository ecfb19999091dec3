package disk_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/mutate/disk"
)

// FuzzParseFstab: every mount is whole, and what is written of it is read as
// the same.
func FuzzParseFstab(f *testing.F) {
	for _, seed := range []string{"UUID=x / ext4 defaults 0 1\n", `LABEL=a\040b /my\040disk\012 xfs ro,,noatime` + "\n", "# x\n\ntmpfs /tmp tmpfs", "a b\u00a0c\u0085d\xff", `a \134040 c ,`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		mounts := disk.ParseFstab(text)
		var b strings.Builder
		for _, m := range mounts {
			if m.Spec == "" || m.Mountpoint == "" || m.FS == "" {
				t.Fatalf("%+v lacks a field", m)
			}
			fmt.Fprintf(&b, "%s\t%s %s", m.Spec, inOctal(m.Mountpoint), m.FS)
			if m.Options != nil {
				b.WriteString(" " + strings.Join(m.Options, ",") + " 0 0")
			}
			b.WriteString("\n")
		}
		if diff := cmp.Diff(mounts, disk.ParseFstab(b.String())); diff != "" {
			t.Fatalf("read again (-first +second):\n%s", diff)
		}
	})
}

// inOctal writes a path as fstab(5) wants white space to be written.
func inOctal(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		if c > ' ' && c < 0x7f && c != '\\' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	return b.String()
}

// FuzzReferences: Rename without names changes nothing, there and back gives
// the text again, and what is said to be named is in the text.
func FuzzReferences(f *testing.F) {
	const old, fresh = "3f519074-8e2c-4da0-b143-2c7ea5f90803", "00000000-1111-4222-8333-444444444444"
	for _, seed := range []string{
		"options root=PARTUUID=" + old + " ro\n", "search --no-floppy --fs-uuid --set=root 1A2B-3C4D\n", "search.fs_uuid " + old + " root\n",
		"LABEL=\"a b\" /dev/disk/by-label/x PARTLABEL='y' UUID=$z\n", "PARTUUID=" + strings.ToUpper(old) + "-01 " + old + old, "# UUID=x\n",
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
		for _, ref := range (disk.Volume{}).References(files) {
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

// FuzzParseOSRelease: a key is a word before the first "=", and a value is in
// the text, without line breaks.
func FuzzParseOSRelease(f *testing.F) {
	for _, seed := range []string{"ID=debian\nVERSION_ID=\"12\"\n", "# ID=x\n=y\nA='b'c\"\n", "\"='"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for k, v := range disk.ParseOSRelease(text) {
			if strings.ContainsAny(k, "=\n") || strings.HasPrefix(k, "#") || strings.Contains(v, "\n") || !strings.Contains(text, k) || !strings.Contains(text, v) {
				t.Fatalf("%q=%q of %q", k, v, text)
			}
			if len(v) > 0 && strings.ContainsAny(v[:1]+v[len(v)-1:], `"'`) {
				t.Fatalf("%q=%q is still quoted", k, v)
			}
		}
	})
}
