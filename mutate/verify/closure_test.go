package verify_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/verify"
)

// gone is a partition UUID that no fixture has.
const gone = "5173b296-a04e-4fc2-9365-4e90c71b2a05"

// closureOf is what the check says of an image, and Remember of it as a base.
func closureOf(t *testing.T, path string, base *verify.Base) (c record.Check, known *verify.Remembered) {
	t.Helper()
	i, err := disk.Open(t.Context(), open(t, path), func(text string) { t.Errorf("note: %s", text) })
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	known, err = verify.Remember(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	for _, check := range verify.Checks() {
		if check.Name != "closure" {
			continue
		}
		found, err := check.Run(t.Context(), verify.Request{Image: i, Base: base})
		if err != nil || len(found) != 1 {
			t.Fatalf("%v, %v", found, err)
		}
		c = found[0]
	}
	return c, known
}

// TestClosure: what names a partition of the base is found wherever it is, in an
// initrd that real programs made too, and what cannot be read is told.
func TestClosure(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	dir := t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	script := `mkdir -p "$1/in/conf/conf.d" && cd "$1/in" && echo RESUME=PARTUUID="$2" >conf/conf.d/resume &&
		find . -mindepth 1 | cpio -o -H newc --quiet | zstd -q >"$1/initrd" && seq 9999 | lzop -q >"$1/lzo"`
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", script, "", dir, gone).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("root=PARTUUID="+strings.ToUpper(gone)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		change func(path string)
		ok     bool
		want   string
	}{
		{"nothing", func(string) {}, true, ""},
		{"an initrd", func(path string) { debugfs(t, path, "write "+initrd+" boot/initrd.img-1") }, false,
			"/boot/initrd.img-1 (conf/conf.d/resume in it) names the base's partition UUID " + gone + ", which no partition has any more: " +
				"name the volume by its filesystem's UUID, and have a step make that file anew (update-initramfs -u, dracut -f)"},
		{"a text", func(path string) { debugfs(t, path, "write "+text+" etc/anything") }, false,
			"/etc/anything names the base's partition UUID " + gone + ", which no partition has any more"},
		{"on the ESP", func(path string) {
			fixtures.Program(t, "", "mcopy", "-i", path+"@@65M", text, "::any.txt")
		}, false, "partition 2: /any.txt names the base's partition UUID " + gone + ", which no partition has any more"},
		{"an initrd that a boot loader has elsewhere", func(path string) {
			cfg := filepath.Join(dir, "grub.cfg")
			text := "menuentry x {\nlinux /srv/a/kernel root=UUID=" + rootUUID + "\ninitrd /srv/a/initrd\n}\n"
			if err := os.WriteFile(cfg, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			debugfs(t, path, "mkdir boot/grub", "write "+cfg+" boot/grub/grub.cfg", "mkdir srv", "mkdir srv/a", "write "+initrd+" srv/a/initrd")
		}, false, "/srv/a/initrd (conf/conf.d/resume in it) names the base's partition UUID " + gone + ", which no partition has any more: " +
			"name the volume by its filesystem's UUID, and have a step make that file anew (update-initramfs -u, dracut -f)"},
		{"what cannot be read", func(path string) {
			debugfs(t, path, "write "+filepath.Join(dir, "lzo")+" boot/initrd.img-1")
		},
			true, "not looked into: /boot/initrd.img-1: it is compressed by lzo"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := small(t)
			tc.change(path)
			c, _ := closureOf(t, path, &verify.Base{IDs: []string{gone}})
			if told := c.Detail + strings.Join(c.Notes, "; "); c.OK != tc.ok || told != tc.want || tc.ok && c.Detail != "" {
				t.Errorf("%t, %q; want %t, %q", c.OK, told, tc.ok, tc.want)
			}
		})
	}
	path := small(t)
	debugfs(t, path, "write "+text+" etc/anything")
	for want, base := range map[string]*verify.Base{
		"/etc/anything names the base's partition UUID " + gone: {IDs: []string{gone}, Filesystems: []string{gone}},
		"": {Filesystems: []string{gone}, Labels: []string{"no-such"}}, // it says that it is a partition's
	} {
		if c, _ := closureOf(t, path, base); c.OK != (want == "") || !strings.HasPrefix(c.Detail, want) {
			t.Errorf("%+v: %+v, want %q", base, c, want)
		}
	}
	path = small(t)
	own := strings.ToLower(strings.TrimSpace(fixtures.Program(t, "", "sfdisk", "--part-uuid", path, "1")))
	fixtures.Program(t, "", "sh", "-c", `sed -i s/`+gone+`/`+own+`/ "$1/in/conf/conf.d/resume" && cd "$1/in" &&
		find . -mindepth 1 | cpio -o -H newc --quiet | xz --check=crc32 >"$1/own"`, "", dir)
	debugfs(t, path, "write "+filepath.Join(dir, "own")+" boot/initrd.img-1")
	c, known := closureOf(t, path, &verify.Base{IDs: []string{own}})
	if !c.OK || !slices.Equal(known.InInitrds, []string{"/boot/initrd.img-1"}) {
		t.Errorf("of a partition that is there: %+v; the base's own: %v", c, known.InInitrds)
	}
}

// TestClosureOfDebian: the image is closed, its kernel and initrd are remembered,
// and with that the check takes as long as it may.
func TestClosureOfDebian(t *testing.T) {
	path := fixtures.Image(t, "debian-12")
	_, known := closureOf(t, path, &verify.Base{})
	if len(known.InInitrds) > 0 || len(known.Clean) < 8*100 {
		t.Errorf("%d bytes of what is clean, and in initrds %q", len(known.Clean), known.InInitrds)
	}
	started := time.Now()
	c, _ := closureOf(t, path, &verify.Base{IDs: []string{gone}, Clean: known.Clean})
	if !c.OK || c.Detail != "" {
		t.Errorf("%+v", c)
	}
	t.Logf("%v with two looks at all of it", time.Since(started))
}

// BenchmarkClosure is what the check costs in an image whose base was remembered.
func BenchmarkClosure(b *testing.B) {
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
	known, err := verify.Remember(b.Context(), i)
	if err != nil {
		b.Fatal(err)
	}
	base := &verify.Base{IDs: []string{gone}, Clean: known.Clean, File: f}
	all := verify.Checks()
	n := slices.IndexFunc(all, func(c verify.Check) bool { return c.Name == "closure" })
	for b.Loop() {
		if _, err := all[n].Run(b.Context(), verify.Request{Image: i, Base: base}); err != nil {
			b.Fatal(err)
		}
	}
}
