package verify_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/verify"
)

// Where the fixture debian-12 has its volumes.
const (
	espOffset  = "@@1048576"
	rootOffset = "?offset=68157440"
)

// TestBootChain: what a loader starts has to be there, and to be the newest
// kernel; but a base may be otherwise.
func TestBootChain(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, path string)
		want   string // of the detail; good if empty
	}{
		{"good", func(*testing.T, string) {}, ""},
		{"a kernel that is gone", func(t *testing.T, path string) {
			fixtures.Program(t, "", "mdel", "-i", path+espOffset, "::/debian/linux")
		}, "/boot/efi/loader/entries/debian.conf starts /boot/efi/debian/linux, which is not there: a kernel was removed"},
		{"an initrd that is gone", func(t *testing.T, path string) {
			fixtures.Program(t, "", "mdel", "-i", path+espOffset, "::/debian/initrd")
		}, "loads /boot/efi/debian/initrd, which is not there"},
		{"a newer kernel", func(t *testing.T, path string) {
			rootFile(t, path, "kernel", "boot/vmlinuz-6.1.0-999-cloud-amd64")
		}, "/boot/vmlinuz-6.1.0-999-cloud-amd64 is newer than 6.1.0-"},
		{"modules without an index", func(t *testing.T, path string) {
			root(t, path, "rm usr/lib/modules/"+kernelOf(t, path)+"/modules.dep")
		}, "which finds no module"},
		{"a text in place of the kernel", func(t *testing.T, path string) {
			onESP(t, path, "x", "::/debian/linux")
		}, "/boot/efi/loader/entries/debian.conf starts /boot/efi/debian/linux, which is a text and no kernel"},
		{"a text in place of the initrd", func(t *testing.T, path string) {
			onESP(t, path, "x", "::/debian/initrd")
		}, "loads /boot/efi/debian/initrd, which is a text and no initrd"},
		{"no init", func(t *testing.T, path string) {
			root(t, path, "rm usr/sbin/init", "rm usr/lib/systemd/systemd")
		}, "the root has no init: no program is at /sbin/init"},
		{"another root", func(t *testing.T, path string) {
			onESP(t, path, "title x\nlinux /debian/linux\ninitrd /debian/initrd\noptions root=UUID=1A2B-3C4D ro\n",
				"::/loader/entries/debian.conf")
		}, "root=UUID=1A2B-3C4D, which is not the root of this image"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image.raw")
			fixtures.Clone(t, fixtures.Image(t, "debian-12"), path)
			tc.change(t, path)
			i, err := disk.Open(t.Context(), open(t, path), func(text string) { t.Error(text) })
			if err != nil {
				t.Fatal(err)
			}
			defer i.Close()
			c := checkOf(t, "boot chain", i, nil)
			if c.OK != (tc.want == "") || !strings.Contains(c.Detail, tc.want) || c.OK != (c.Mend == "") {
				t.Errorf("%+v, want %q", c, tc.want)
			}
			found, err := verify.Findings(t.Context(), i)
			var known []string
			for _, f := range found {
				if !f.Note {
					known = append(known, f.Key)
				}
			}
			if err != nil || (len(known) == 0) != (tc.want == "") {
				t.Fatalf("Findings = %q, %v", known, err)
			}
			c = checkOf(t, "boot chain", i, known)
			if !c.OK || tc.want != "" && !strings.Contains(strings.Join(c.Notes, ";"), tc.want) {
				t.Errorf("of a base that has the same: %+v", c)
			}
		})
	}
}

// checkOf runs one check, of which a base has what is known.
func checkOf(t *testing.T, name string, i *disk.Image, known []string) record.Check {
	t.Helper()
	all := verify.Checks()
	n := slices.IndexFunc(all, func(c verify.Check) bool { return c.Name == name })
	found, err := all[n].Run(t.Context(), verify.Request{Image: i, Base: &verify.Base{Known: known}})
	if err != nil || len(found) != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
	return found[0]
}

// root changes the root of the fixture without the kernel.
func root(t *testing.T, path string, commands ...string) {
	t.Helper()
	fixtures.Program(t, strings.Join(commands, "\n")+"\n", "debugfs", "-w", "-f", "-", path+rootOffset)
}

// onESP writes a file there.
func onESP(t *testing.T, path, text, name string) {
	t.Helper()
	fixtures.Program(t, text, "mcopy", "-o", "-i", path+espOffset, "-", name)
}

func rootFile(t *testing.T, path, text, name string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	root(t, path, "write "+file+" "+name)
}

// kernelOf is the version of the fixture's kernel.
func kernelOf(t *testing.T, path string) string {
	t.Helper()
	out := fixtures.Program(t, "ls -p /usr/lib/modules\n", "debugfs", "-f", "-", path+rootOffset)
	for _, word := range strings.Split(out, "/") {
		if strings.HasPrefix(word, "6.") {
			return word
		}
	}
	t.Fatalf("no kernel in %s", out)
	return ""
}

// BenchmarkBootChain is what the check costs beside the others, which have the
// same volumes mounted.
func BenchmarkBootChain(b *testing.B) {
	fixtures.Require(b, fixtures.Root, fixtures.Tools)
	f, err := os.Open(fixtures.Image(b, "debian-12"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	i, err := disk.Open(b.Context(), f, func(string) {})
	if err != nil {
		b.Fatal(err)
	}
	defer i.Close()
	all := verify.Checks()
	n := slices.IndexFunc(all, func(c verify.Check) bool { return c.Name == "boot chain" })
	for b.Loop() {
		if _, err := all[n].Run(b.Context(), verify.Request{Image: i}); err != nil {
			b.Fatal(err)
		}
	}
}
