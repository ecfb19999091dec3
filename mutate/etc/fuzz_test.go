package etc_test

import (
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/mutate/etc"
)

// FuzzParseFstab: every mount is whole, and what is written of it is read as
// the same.
func FuzzParseFstab(f *testing.F) {
	for _, seed := range []string{
		"UUID=x / ext4 defaults 0 1\n", `LABEL=a\040b /my\040disk\012 xfs ro,,noatime` + "\n",
		"# x\n\ntmpfs /tmp tmpfs", "a b\u00a0c\u0085d\xff", `a \134040 c ,`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		mounts := etc.ParseFstab(text)
		var b strings.Builder
		for _, m := range mounts {
			if m.What == "" || m.Place == "" || m.FS == "" && m.Options != nil {
				t.Fatalf("%+v lacks a field", m)
			}
			fmt.Fprintf(&b, "%s\t%s %s", inOctal(m.What), inOctal(m.Place), m.FS)
			if m.Options != nil {
				b.WriteString(" " + strings.Join(m.Options, ",") + " 0 0")
			}
			b.WriteString("\n")
		}
		if diff := cmp.Diff(mounts, etc.ParseFstab(b.String())); diff != "" {
			t.Fatalf("read again (-first +second):\n%s", diff)
		}
	})
}

// inOctal writes a field as fstab(5) wants white space to be written.
func inOctal(field string) string {
	var b strings.Builder
	for _, c := range []byte(field) {
		if c > ' ' && c < 0x7f && c != '\\' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	return b.String()
}

// FuzzParseOSRelease: a key is a word before the first "=", and a value is in
// the text, without line breaks.
func FuzzParseOSRelease(f *testing.F) {
	for _, seed := range []string{"ID=debian\nVERSION_ID=\"12\"\n", "# ID=x\n=y\nA='b'c\"\n", "\"='"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for k, v := range etc.ParseOSRelease(text) {
			if strings.ContainsAny(k, "=\n") || strings.HasPrefix(k, "#") || strings.Contains(v, "\n") ||
				!strings.Contains(text, k) || !strings.Contains(text, v) {
				t.Fatalf("%q=%q of %q", k, v, text)
			}
			if len(v) > 0 && strings.ContainsAny(v[:1]+v[len(v)-1:], `"'`) {
				t.Fatalf("%q=%q is still quoted", k, v)
			}
		}
	})
}

// FuzzMounts: of whatever fstab, unit and drop-in, each mount is at a place of its
// own that is clean and not fresh, needed ones start, and a second look says the same.
func FuzzMounts(f *testing.F) {
	for _, seed := range [][3]string{
		{"UUID=x / ext4 defaults 0 1\na /srv ext4 noauto\n", mount("/srv"), "[Mount]\nOptions=ro\n"},
		{"a /a\\040b x-systemd.automount\n", "[Unit]\nWants=a.mount \\\n # x\n b.mount\nRequiresMountsFor=%S/x\n[Mount]\nWhere=/srv", "[X"},
		{"a /l/../x ext4 x-systemd.required-by=x@y.service",
			service("Requires=x@%i.service -.mount"), "\ufeff[Service]\r\nStateDirectory='a b':c\r\n"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Add("a /x", mount("/srv"), `systemd.mount-extra=a\s:/b\x20:ext4:bg systemd.mask=srv.mount systemd.volatile=state "systemd.wants='/b`)
	f.Fuzz(func(t *testing.T, fstab, unit, dropIn string) { // the last is the kernel's command line, too
		tree := image(map[string]string{
			"etc/fstab": fstab, "l": "-> /srv/../etc", "e/srv.mount": unit, "u/x@.service": unit, "u/srv.mount": mount("/srv"),
			"u/-.mount": unit, "e/srv.mount.d/x.conf": dropIn, "u/mount.d/x.conf": unit, "u/x@.service.d/y.conf": dropIn,
			"u/default.target": "[Unit]\nWants=x@y.service\nRequires=srv.mount\n", "u/local-fs.target": "[Unit]\n",
		})
		list, err := etc.Mounts(tree, dropIn)
		if err != nil {
			if len(fstab) < 256 {
				t.Fatal(err)
			}
			return
		}
		places := map[string]bool{}
		for _, m := range list {
			clean := path.IsAbs(m.Place) && path.Clean(m.Place) == m.Place
			if (m.What == "") != m.Masked || !clean || places[m.Place] || m.From == "" || (m.Needed || m.Masked) && m.Starts == m.Masked ||
				strings.HasPrefix(m.Place+"/", "/proc/") || strings.HasPrefix(m.Place+"/", "/run/") {
				t.Fatalf("%+v", m)
			}
			places[m.Place] = true
		}
		again, err := etc.Mounts(tree, dropIn)
		if diff := cmp.Diff(list, again); diff != "" || err != nil {
			t.Fatalf("looked at again: %v (-first +second):\n%s", err, diff)
		}
	})
}
