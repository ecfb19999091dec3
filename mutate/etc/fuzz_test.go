package etc_test

import (
	"fmt"
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
