package refs_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/refs"
)

const (
	gone     = "3f519074-8e2c-4da0-b143-2c7ea5f90803"
	goneMBR  = "696d676d-01"
	isFSToo  = "5173b296-a04e-4fc2-9365-4e90c71b2a05" // a partition's and a filesystem's
	mixed    = "\x74\x90\x51\x3f\x2c\x8e\xa0\x4d\xb1\x43\x2c\x7e\xa5\xf9\x08\x03"
	straight = "\x3f\x51\x90\x74\x8e\x2c\x4d\xa0\xb1\x43\x2c\x7e\xa5\xf9\x08\x03"
)

var whatIsGone = refs.Search{Partitions: []string{gone, goneMBR, isFSToo}, Here: []string{isFSToo, "1A2B-3C4D"}}

func scan(t testing.TB, files refs.Files, s refs.Search) refs.Report {
	t.Helper()
	r, err := files.Scan(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// cpio is an archive of one file.
func cpio(name, content string) string {
	head := func(name string, size int) string {
		b := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", 1, 0o100644, 0, 0, 1, 0, size,
			0, 0, 0, 0, len(name)+1, 0, name)
		return b + strings.Repeat("\x00", -len(b)&3)
	}
	return head(name, len(content)) + content + strings.Repeat("\x00", -len(content)&3) + head("TRAILER!!!", 0)
}

func gzipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return b.String()
}

func utf16le(text string) string { return strings.Join(strings.Split(text, ""), "\x00") + "\x00" }

// TestScanForms: an ID is found however it is written, and only if it is one.
func TestScanForms(t *testing.T) {
	for text, want := range map[string]string{
		"root=PARTUUID=" + gone:           gone,
		strings.ToUpper(gone):             gone,
		strings.ReplaceAll(gone, "-", ""): gone,
		`dev-disk-by\x2dpartuuid-` + strings.ReplaceAll(gone, "-", `\x2d`) + ".device": gone,
		"\xff\xfe" + utf16le("PARTUUID="+strings.ToUpper(gone)):                        gone,
		"\x04\x01\x2a\x00" + mixed:            gone,
		straight:                              gone,
		"root=PARTUUID=" + goneMBR:            goneMBR,
		utf16le(goneMBR):                      goneMBR,
		gone + "0":                            "",
		"a" + gone:                            "",
		gone[:35]:                             "",
		utf16le(gone + "0"):                   "",
		goneMBR + "ab-4000-8000-000000000000": "",
		straight[:15]:                         "",
		strings.ToUpper(straight):             "", // only letters have a case
		// No filesystem has it, so it is the partition's, whatever it is said to be.
		"uuid=" + gone + "\nroot=PARTUUID=${uuid}":                 gone,
		`ENV{ID_FS_UUID}=="` + gone:                                gone,
		`ENV{ID_PART_ENTRY_UUID}=="` + gone:                        gone,
		"/dev/disk/by-uuid/" + gone:                                gone,
		"/dev/disk/by-partuuid/" + gone:                            gone,
		"search --no-floppy --fs-uuid --set=root --hint=a " + gone: gone,
		"search.fs_uuid " + gone + " root":                         gone,
		"search -u x " + gone:                                      gone,
		"search --part-uuid --set root " + gone:                    gone,
		"rd.luks.name=luks-" + gone:                                gone,
		"label=" + gone:                                            gone,
		"uuid=" + goneMBR:                                          goneMBR,
		// Of what a filesystem has, too, what it is said to be decides.
		"search --no-floppy --fs-uuid --set=root --hint=a " + isFSToo: "",
		"luks-" + isFSToo:               "",
		"LABEL=x " + gone:               gone,
		"UUID=x PARTUUID=" + gone:       gone,
		"PARTUUID=" + isFSToo:           isFSToo,
		"path: guid(" + isFSToo + "):/": isFSToo,
		"PARTUUID=\n" + isFSToo:         "",
		"id " + isFSToo:                 "",
		"UUID=" + isFSToo:               "",
		utf16le("UUID=" + isFSToo):      "",
		utf16le("PARTUUID=" + isFSToo):  isFSToo,
		"\x51\x73\xb2\x96\xa0\x4e\x4f\xc2\x93\x65\x4e\x90\xc7\x1b\x2a\x05": "",
	} {
		for _, pad := range []int{0, 1, 7, 255, 524280, 524288, 600000} { // around the ends of what is read at once
			b := strings.Repeat("\n", pad) + text + strings.Repeat("\n", pad%300)
			r := scan(t, refs.Files{FS: fstest.MapFS{"boot/x": file(b)}}, whatIsGone)
			var wanted []refs.Leftover
			if want != "" {
				wanted = []refs.Leftover{{File: "boot/x", ID: want, Tag: "PARTUUID"}}
			}
			if diff := cmp.Diff(wanted, r.Found); diff != "" {
				t.Errorf("%q behind %d bytes (-want +got):\n%s", text, pad, diff)
			}
		}
	}
}

// TestScanPlaces: what is read at boot is searched, inside too, and nothing else.
func TestScanPlaces(t *testing.T) {
	link := func(to string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink | 0o777}
	}
	text := file("PARTUUID=" + gone)
	const hook = `hooks/devexists-\x2fdev\x2fdisk\x2fby-partuuid\x2f` + gone + ".sh"
	inside := func(f string) *fstest.MapFile { return file(f) }
	for _, tc := range []struct {
		name  string
		files fstest.MapFS
		want  []refs.Leftover
	}{
		{"not read at boot", fstest.MapFS{"srv/x": text, "usr/bin/x": text, "home/x": text, "etc/alternatives/x": text, "var/lib/x": text}, nil},
		{"any file of these", fstest.MapFS{"etc/a/b/c": text, "usr/lib/systemd/system/a.service.d/b.conf": text,
			"usr/lib/modules/6.1/initramfs.img": text, "lib/udev/rules.d/1.rules": text},
			[]refs.Leftover{{File: "etc/a/b/c", ID: gone, Tag: "PARTUUID"}, {File: "lib/udev/rules.d/1.rules", ID: gone, Tag: "PARTUUID"},
				{File: "usr/lib/modules/6.1/initramfs.img", ID: gone, Tag: "PARTUUID"},
				{File: "usr/lib/systemd/system/a.service.d/b.conf", ID: gone, Tag: "PARTUUID"}}},
		{"an initrd", fstest.MapFS{"boot/initrd.img": inside(gzipped(cpio("conf/conf.d/resume", "RESUME=PARTUUID="+gone)))},
			[]refs.Leftover{{File: "boot/initrd.img", Inside: "conf/conf.d/resume", ID: gone, Tag: "PARTUUID"}}},
		{"behind microcode", fstest.MapFS{"boot/initrd.img": inside(cpio("kernel/x86/microcode/a", "b") + strings.Repeat("\x00", 512) +
			gzipped(cpio("etc/cmdline.d/1.conf", "root=PARTUUID="+gone)))},
			[]refs.Leftover{{File: "boot/initrd.img", Inside: "etc/cmdline.d/1.conf", ID: gone, Tag: "PARTUUID"}}},
		{"a name in an initrd", fstest.MapFS{"boot/initrd.img": inside(cpio(hook, ""))},
			[]refs.Leftover{{File: "boot/initrd.img", Inside: hook, ID: gone, Tag: "PARTUUID"}}},
		{"behind an archive", fstest.MapFS{"boot/initrd.img": inside(cpio("a", "b") + "root=PARTUUID=" + gone + "\n#BOOTCONFIG\n")},
			[]refs.Leftover{{File: "boot/initrd.img", ID: gone, Tag: "PARTUUID"}}},
		{"the filesystem, in an initrd",
			fstest.MapFS{"boot/initrd.img": inside(gzipped(cpio("conf/conf.d/resume", "RESUME=UUID="+isFSToo)))}, nil},
		{"a name", fstest.MapFS{`etc/systemd/system/dev-disk-by\x2dpartuuid-3f519074\x2d8e2c\x2d4da0\x2db143\x2d2c7ea5f90803.swap`: file("")},
			[]refs.Leftover{{File: `etc/systemd/system/dev-disk-by\x2dpartuuid-3f519074\x2d8e2c\x2d4da0\x2db143\x2d2c7ea5f90803.swap`,
				ID: gone, Tag: "PARTUUID"}}},
		{"where a link leads", fstest.MapFS{"etc/disk": link("/dev/disk/by-partuuid/" + gone)},
			[]refs.Leftover{{File: "etc/disk", Inside: "/dev/disk/by-partuuid/" + gone, ID: gone, Tag: "PARTUUID"}}},
		{"a text through a link", fstest.MapFS{"etc/fstab": link("../nix/store/fstab"), "nix/store/fstab": text},
			[]refs.Leftover{{File: "etc/fstab", ID: gone, Tag: "PARTUUID"}}},
		{"a large file through a link", fstest.MapFS{"boot/initrd.img": link("../srv/kernels/initrd"),
			"srv/kernels/initrd": file(strings.Repeat("x", 9<<20) + "PARTUUID=" + gone)},
			[]refs.Leftover{{File: "boot/initrd.img", ID: gone, Tag: "PARTUUID"}}},
		{"a directory through a link", fstest.MapFS{"etc/systemd/system": link("../../nix/units"), "nix/units/a.mount": text,
			"etc/x": link("../nix/units")},
			[]refs.Leftover{{File: "etc/systemd/system/a.mount", ID: gone, Tag: "PARTUUID"}, {File: "etc/x/a.mount", ID: gone, Tag: "PARTUUID"}}},
		{"what units start", fstest.MapFS{
			"etc/systemd/system/a.service": file("[Service]\nExecStartPre=-/opt/pre \\\n  --x\nExecStart=@/bin/sh -c '/opt/run; /opt/large'\n" +
				"EnvironmentFile=-/var/lib/a/env\nExecStop=/opt/%i\n# ExecStart=/opt/no\nDescription=/opt/no\n"),
			"usr/lib/systemd/system/b.service.d/c.conf": file("[Service]\nExecReload=/opt/reload\n"),
			"opt/pre": text, "opt/run": text, "opt/large": file(strings.Repeat("x", 1<<20) + gone), "var/lib/a/env": text, "opt/%i": text,
			"opt/no": text, "opt/reload": text},
			[]refs.Leftover{{File: "opt/pre", ID: gone, Tag: "PARTUUID"}, {File: "opt/reload", ID: gone, Tag: "PARTUUID"},
				{File: "opt/run", ID: gone, Tag: "PARTUUID"}, {File: "var/lib/a/env", ID: gone, Tag: "PARTUUID"}}},
		{"a machine's own scripts", fstest.MapFS{"usr/local/sbin/x": text, "usr/local/bin/y": text, "usr/local/etc/a/b": text,
			"usr/local/bin/large": file(strings.Repeat("x", 1<<20) + gone), "usr/local/share/x": text},
			[]refs.Leftover{{File: "usr/local/bin/y", ID: gone, Tag: "PARTUUID"}, {File: "usr/local/etc/a/b", ID: gone, Tag: "PARTUUID"},
				{File: "usr/local/sbin/x", ID: gone, Tag: "PARTUUID"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, scan(t, refs.Files{FS: tc.files}, whatIsGone).Found); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	whole := refs.Files{FS: fstest.MapFS{"any/where": text}, Whole: true}
	if r := scan(t, whole, whatIsGone); len(r.Found) != 1 {
		t.Errorf("a volume that is read as a whole: %+v", r)
	}
	named := refs.Files{FS: fstest.MapFS{"srv/initrd": text, "srv/dtbs/a/b.dtb": text, "srv/other": text},
		Named: []string{"srv/dtbs", "srv/initrd", "srv/not-there"}}
	if r := scan(t, named, whatIsGone); len(r.Found) != 2 || r.Found[0].File != "srv/dtbs/a/b.dtb" || r.Found[1].File != "srv/initrd" {
		t.Errorf("what a boot loader names: %+v", r)
	}
}

// TestScanUnread: what cannot be looked into is told, and its bytes are searched.
func TestScanUnread(t *testing.T) {
	files := fstest.MapFS{"boot/initrd.img": file("\x89LZO\x00\x0d\x0a\x1a\x0a" + gone), "boot/other": file(gzipped(cpio("a", "b"))[:40])}
	r := scan(t, refs.Files{FS: files}, whatIsGone)
	if len(r.Unread) != 2 || r.Unread[0].File != "boot/initrd.img" || len(r.Found) != 1 || len(r.Clean) > 0 {
		t.Errorf("%+v", r)
	}
	dir := t.TempDir()
	err := errors.Join(os.Mkdir(filepath.Join(dir, "etc"), 0o755), os.WriteFile(filepath.Join(dir, "disk"), nil, 0o600),
		os.Truncate(filepath.Join(dir, "disk"), 1<<30+1), os.Symlink("../disk", filepath.Join(dir, "etc/x")))
	if r := scan(t, refs.Files{FS: os.DirFS(dir)}, whatIsGone); err != nil || len(r.Unread) != 1 || r.Bytes > 0 {
		t.Errorf("a disk through a link: %v, %+v", err, r)
	}
}

// TestScanKnown: a file that was clean is not read again unless it has changed in
// any way, and only what was clean is known.
func TestScanKnown(t *testing.T) {
	dir := t.TempDir()
	large := strings.Repeat("x", 1<<20)
	write := func(name, content string) {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write("boot/initrd.img", gzipped(cpio("a", large+fmt.Sprint(time.Now())))+large)
	write("boot/bad", large+gone)
	write("etc/small", "x")
	files := refs.Files{FS: os.DirFS(dir), Tree: "2:/"}
	first := scan(t, files, whatIsGone)
	if len(first.Clean) != 2 || len(first.Found) != 1 || first.Files != 3 {
		t.Fatalf("at first: %+v", first)
	}
	b, err := first.Clean.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	known := files
	known.Clean = refs.KnownFrom(append(b, "cut off"...))
	if r := scan(t, known, whatIsGone); r.Files != 1 || len(r.Found) != 1 || r.Bytes >= first.Bytes {
		t.Errorf("again: %+v", r)
	}
	other := known
	other.Tree = "3:/"
	if r := scan(t, other, whatIsGone); r.Files != 3 {
		t.Errorf("in another volume: %+v", r)
	}
	before, err := os.Stat(filepath.Join(dir, "boot/initrd.img"))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // a filesystem's clock is no finer
	write("boot/initrd.img", strings.Repeat("y", int(before.Size())-len(gone))+gone)
	if err := os.Chtimes(filepath.Join(dir, "boot/initrd.img"), before.ModTime(), before.ModTime()); err != nil {
		t.Fatal(err)
	}
	if r := scan(t, known, whatIsGone); len(r.Found) != 2 {
		t.Errorf("changed, with its size and time as before: %+v", r)
	}
}

// TestScanKnownFAT: where the filesystem tells no time of a change, a file is known by
// where its bytes are, as long as they are known to be the same.
func TestScanKnownFAT(t *testing.T) {
	place, same := map[string]string{"a": " 0+1", "b": " 512+1"}, true
	files := refs.Files{FS: fstest.MapFS{"a": file("x"), "b": file("x")}, FAT: true, Whole: true}
	files.Unmoved = func(name string, size int64) (string, bool) {
		if size != 1 {
			t.Errorf("asked for %d bytes of %s", size, name)
		}
		return place[name], same || name != "a"
	}
	files.Clean = scan(t, files, whatIsGone).Clean
	if r := scan(t, files, whatIsGone); len(files.Clean) != 2 || r.Files != 0 {
		t.Errorf("again: %+v", r)
	}
	same = false
	if r := scan(t, files, whatIsGone); r.Files != 1 || len(r.Clean) != 0 {
		t.Errorf("with other bytes: %+v", r)
	}
	same, place["a"] = true, " 1024+1"
	if r := scan(t, files, whatIsGone); r.Files != 1 {
		t.Errorf("moved: %+v", r)
	}
	files.Unmoved = nil
	if r := scan(t, files, whatIsGone); r.Files != 2 || len(r.Clean) != 0 {
		t.Errorf("of which nothing is known: %+v", r)
	}
}

// TestScanBounds: what a stranger's volume holds costs no time without end.
func TestScanBounds(t *testing.T) {
	near := strings.Repeat(gone[:20], 1<<20)
	_, err := refs.Files{FS: fstest.MapFS{"boot/x": file(near)}}.Scan(t.Context(), whatIsGone)
	if fault.Of(err) != fault.Image || !strings.Contains(fmt.Sprint(err), "boot/x is full of what is like") {
		t.Errorf("a file full of what is nearly an ID: %v", err)
	}
	zeros := refs.Search{Partitions: []string{"00000000-0000-0000-0000-000000000000"}}
	if r := scan(t, refs.Files{FS: fstest.MapFS{"boot/x": file(strings.Repeat("\x00", 4096))}}, zeros); len(r.Found) > 0 {
		t.Errorf("zeros are everywhere: %+v", r)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := (refs.Files{FS: fstest.MapFS{"boot/x": file("")}}).Scan(ctx, whatIsGone); !errors.Is(err, cause) {
		t.Errorf("interrupted: %v", err)
	}
	if r := scan(t, refs.Files{}, refs.Search{}); r.Files > 0 {
		t.Errorf("nothing to look for: %+v", r)
	}
}

// TestScanFilesystems: what is left of a filesystem's old UUID is found, and a
// serial of FAT only where it is said to be one.
func TestScanFilesystems(t *testing.T) {
	search := refs.Search{Partitions: []string{goneMBR, isFSToo}, Filesystems: []string{gone, isFSToo, "1A2B-3C4D"},
		Here: []string{"5E6F-7A8B"}}
	for text, want := range map[string]string{
		"root=UUID=" + gone:              gone,
		"a " + strings.ToUpper(gone):     gone,
		"resume=UUID=1A2B-3C4D":          "1a2b-3c4d",
		"search.fs_uuid 1a2b-3c4d root":  "1a2b-3c4d",
		"/dev/disk/by-uuid/1A2B-3C4D":    "1a2b-3c4d",
		"UUID=" + isFSToo:                isFSToo,
		"a " + isFSToo:                   isFSToo,
		utf16le("UUID=" + gone):          gone,
		"PARTUUID=" + gone:               "", // a partition of another disk
		"LABEL=" + gone:                  "",
		"on 1A2B-3C4D":                   "",
		"PARTUUID=1A2B-3C4D":             "",
		"UUID=5E6F-7A8B UUID=01A2B-3C4D": "",
	} {
		r := scan(t, refs.Files{FS: fstest.MapFS{"boot/x": file("\n" + text + "\n")}}, search)
		var wanted []refs.Leftover
		if want != "" {
			wanted = []refs.Leftover{{File: "boot/x", ID: want, Tag: "UUID"}}
			if text == "a "+isFSToo {
				wanted[0].Tag = "PARTUUID"
			}
		}
		if diff := cmp.Diff(wanted, r.Found); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

// TestScanLabels: a label is one where that is said.
func TestScanLabels(t *testing.T) {
	for text, found := range map[string]bool{
		"root=LABEL=my-Root ro":                      true,
		`LABEL="my-Root"`:                            true,
		"/dev/disk/by-label/my-Root\n":               true,
		`dev-disk-by\x2dlabel-my\x2dRoot.mount`:      true,
		"root=LABEL=my-Root\\\n ro":                  true,
		`dev-disk-by\x2dlabel-my\x2dRoot\x2da.mount`: false,
		`/dev/disk/by-Label/my-Root`:                 false,
		"root=LABEL=my-root":                         false,
		"LABEL=my-Root2 LABEL=my-Root-a":             false,
		"PARTLABEL=my-Root my-Root":                  false,
	} {
		r := scan(t, refs.Files{FS: fstest.MapFS{"boot/x": file(text)}}, refs.Search{Labels: []string{"my-Root", "r"}})
		var want []refs.Leftover
		if found {
			want = []refs.Leftover{{File: "boot/x", ID: "my-Root", Tag: "LABEL"}}
		}
		if diff := cmp.Diff(want, r.Found); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

// FuzzScan: an ID between any bytes is found, if nothing says that it is another's,
// and what is found is there.
func FuzzScan(f *testing.F) {
	f.Add([]byte("PARTUUID="), []byte("\n"), uint16(3))
	f.Add([]byte("search --fs-uuid "), []byte(" root"), uint16(65000))
	f.Add([]byte(gone[:30]), []byte(gone[3:]), uint16(0))
	f.Add([]byte("\x1f\x8b"), []byte(""), uint16(8))
	f.Fuzz(func(t *testing.T, before, after []byte, pad uint16) {
		search := refs.Search{Partitions: []string{gone}}
		around := append(append(append([]byte("#"), before...), make([]byte, pad)...), after...)
		r, err := refs.Files{FS: fstest.MapFS{"boot/x": file(string(around))}}.Scan(t.Context(), search)
		lower := bytes.ToLower(around)
		there := bytes.Contains(lower, []byte(gone)) || bytes.Contains(around, []byte(mixed)) || bytes.Contains(around, []byte(straight)) ||
			bytes.Contains(lower, []byte(strings.ReplaceAll(gone, "-", ""))) || bytes.Contains(lower, []byte(utf16le(gone))) ||
			bytes.Contains(lower, []byte(strings.ReplaceAll(gone, "-", `\x2d`)))
		if err != nil || len(r.Found) > 0 && !there {
			t.Fatalf("%v: %+v of %q", err, r, around)
		}
		for _, form := range []string{"\n" + gone + "\n", "\n" + utf16le(gone) + "\n", straight, mixed} {
			b := append(append(append([]byte("#"), before...), make([]byte, pad)...), form...)
			if r := scan(t, refs.Files{FS: fstest.MapFS{"boot/x": file(string(append(b, after...)))}}, search); len(r.Found) != 1 {
				t.Fatalf("%q is not found behind %q and before %q", form, before, after)
			}
		}
	})
}
