package uki_test

import (
	"bytes"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/uki"
)

func TestRead(t *testing.T) {
	files := fstest.MapFS{"a.efi": {Data: fixtures.UKI(".osrel", "ID=x\n", ".linux", "kernel", ".cmdline", "ro\x00noise", ".uname", "6.1")}}
	u := uki.Read(files, "a.efi", ".linux", ".cmdline", ".uname", ".initrd")
	var got []string
	for _, s := range u.Sections {
		got = append(got, s.Name, s.Text())
	}
	if diff := cmp.Diff([]string{".linux", "kernel", ".cmdline", "ro", ".uname", "6.1"}, got); diff != "" {
		t.Errorf("sections (-want +got):\n%s", diff)
	}
	if s, ok := u.Find(".uname"); !ok || s.Offset != 0x4000 {
		t.Errorf("Find = %+v, %t", s, ok)
	}
	if _, ok := u.Find(".initrd"); ok || u.Signed {
		t.Error("it finds what is not there, or a signature")
	}
}

// FuzzRead: whatever a file says it is, each section is a part of it.
func FuzzRead(f *testing.F) {
	f.Add(fixtures.UKI(".linux", "x", ".cmdline", "ro"))
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, b []byte) {
		u := uki.Read(fstest.MapFS{"a": {Data: b}}, "a", ".linux", ".cmdline")
		for _, s := range u.Sections {
			if s.Name != ".linux" && s.Name != ".cmdline" || !bytes.HasPrefix(b[s.Offset:], s.Head) {
				t.Fatalf("section %s of %d bytes at %d", s.Name, len(s.Head), s.Offset)
			}
		}
	})
}
