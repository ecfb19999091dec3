package agent

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
)

// member is one file of a tar stream.
type member struct {
	tar.Header
	content string
}

func regular(name, content string, mode int64) member {
	return member{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}, content}
}

// archive writes a tar stream. Every name must be below dir: unpack writes to
// absolute paths.
func archive(t *testing.T, dir string, members ...member) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		if !strings.HasPrefix(m.Name, dir+"/") {
			t.Fatalf("%s is not below %s", m.Name, dir)
		}
		if err := w.WriteHeader(&m.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func put(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func holds(t *testing.T, name, want string) {
	t.Helper()
	if b, err := os.ReadFile(name); err != nil || string(b) != want {
		t.Errorf("%s holds %q, %v; want %q", name, b, err, want)
	}
}

// modeOf gives type and permission bits, without following a link.
func modeOf(t *testing.T, name string) (mode uint32, uid, gid int) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Mode, int(st.Uid), int(st.Gid)
}

// nothingNew fails the test if a temporary file is left anywhere below dir.
func nothingNew(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(path, ".imgmut-") {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestUnpackFile(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	dir := t.TempDir()
	put(t, dir+"/old", "old")
	put(t, dir+"/target", "of the link")
	if err := errors.Join(os.Link(dir+"/old", dir+"/other-name"), os.Symlink("target", dir+"/link"), os.Symlink("nowhere", dir+"/dangling")); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(dir + "/old")
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	when := time.Unix(1_000_000_000, 0)
	timed := regular(dir+"/timed", "", 0o600)
	SetTime(&timed.Header, when)

	err = unpack(archive(t, dir,
		regular(dir+"/old", "new", 0o640), regular(dir+"/link", "no link", 0o644), regular(dir+"/dangling", "neither", 0o644),
		regular(dir+"/a/b/c", "deep", 0o4755), timed))
	if err != nil {
		t.Fatal(err)
	}
	holds(t, dir+"/old", "new")
	holds(t, dir+"/other-name", "old") // replaced, not written into
	holds(t, dir+"/target", "of the link")
	for name, want := range map[string]uint32{
		"old": unix.S_IFREG | 0o640, "link": unix.S_IFREG | 0o644, "dangling": unix.S_IFREG | 0o644,
		"a": unix.S_IFDIR | 0o755, "a/b": unix.S_IFDIR | 0o755, "a/b/c": unix.S_IFREG | 0o4755,
	} {
		if got, uid, gid := modeOf(t, dir+"/"+name); got != want || uid != 0 || gid != 0 {
			t.Errorf("%s is %o, %d:%d; want %o, 0:0", name, got, uid, gid, want)
		}
	}
	if _, err := os.Lstat(dir + "/nowhere"); err == nil {
		t.Error("a file was written through a dangling link")
	}
	if fi, err := os.Stat(dir + "/timed"); err != nil || !fi.ModTime().Equal(when) {
		t.Errorf("timed is of %v, want %v", fi.ModTime(), when)
	}
	nothingNew(t, dir)
}

func TestUnpackDirectory(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	dir := t.TempDir()
	directory := func(name string, mode int64) member {
		return member{tar.Header{Typeflag: tar.TypeDir, Name: dir + "/" + name, Mode: mode, Uid: 7, Gid: 8}, ""}
	}
	if err := errors.Join(os.Mkdir(dir+"/there", 0o700), os.Symlink("there", dir+"/link"), os.Chown(dir+"/there", 5, 6)); err != nil {
		t.Fatal(err)
	}
	put(t, dir+"/there/file", "kept")
	put(t, dir+"/file", "")
	err := unpack(archive(t, dir, directory("there", 0o755), directory("link", 0o755), regular(dir+"/link/through", "x", 0o644), directory("new", 0o2770), regular(dir+"/new/in", "y", 0o600)))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		mode     uint32
		uid, gid int
	}{"there": {unix.S_IFDIR | 0o700, 5, 6}, "link": {unix.S_IFLNK | 0o777, 0, 0}, "new": {unix.S_IFDIR | 0o2770, 7, 8}} {
		if mode, uid, gid := modeOf(t, dir+"/"+name); mode != want.mode || uid != want.uid || gid != want.gid {
			t.Errorf("%s is %o, %d:%d; want %o, %d:%d", name, mode, uid, gid, want.mode, want.uid, want.gid)
		}
	}
	holds(t, dir+"/there/file", "kept")
	holds(t, dir+"/there/through", "x")
	holds(t, dir+"/new/in", "y")
	if err := unpack(archive(t, dir, directory("file", 0o755))); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a directory takes the place of a file: %v", err)
	}
	nothingNew(t, dir)
}

func TestUnpackSymlink(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	dir := t.TempDir()
	put(t, dir+"/old", "old")
	put(t, dir+"/target", "")
	link := func(name, target string) member {
		return member{tar.Header{Typeflag: tar.TypeSymlink, Name: dir + "/" + name, Linkname: target, Uid: 9, Gid: 9, Mode: 0o777}, ""}
	}
	if err := unpack(archive(t, dir, link("old", "../anywhere"), link("new", dir+"/target"))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"old": "../anywhere", "new": dir + "/target"} {
		if got, err := os.Readlink(dir + "/" + name); err != nil || got != want {
			t.Errorf("%s leads to %q, %v; want %q", name, got, err, want)
		}
		if _, uid, gid := modeOf(t, dir+"/"+name); uid != 9 || gid != 9 {
			t.Errorf("%s belongs to %d:%d, want 9:9", name, uid, gid)
		}
	}
	if _, uid, _ := modeOf(t, dir+"/target"); uid != 0 {
		t.Error("the link's target got its owner")
	}
}

func TestUnpackOwner(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	for _, tc := range []struct {
		owner    string
		uid, gid int
		want     string // what the error must mention
	}{
		{"", 11, 12, ""},
		{"daemon", 1, 1, ""},
		{"daemon:adm", 1, 4, ""},
		{"root:0", 0, 0, ""},
		{"4321:1234", 4321, 1234, ""},
		{"daemon:1234", 1, 1234, ""},
		{"nobody-of-that-name", 0, 0, `no user "nobody-of-that-name"`},
		{"daemon:no-such-group", 0, 0, `no group "no-such-group"`},
	} {
		t.Run(tc.owner, func(t *testing.T) {
			dir := t.TempDir()
			m := regular(dir+"/file", "x", 0o6755)
			m.Uid, m.Gid = 11, 12
			SetOwner(&m.Header, tc.owner)
			err := unpack(archive(t, dir, m))
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), m.Name) {
					t.Errorf("unpack: %v, want it to mention %s and the file", err, tc.want)
				}
				if _, err := os.Lstat(m.Name); err == nil {
					t.Error("the file is there all the same")
				}
				nothingNew(t, dir)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if mode, uid, gid := modeOf(t, m.Name); uid != tc.uid || gid != tc.gid || mode&0o7777 != 0o6755 {
				t.Errorf("the file is %o, %d:%d; want 6755, %d:%d", mode&0o7777, uid, gid, tc.uid, tc.gid)
			}
		})
	}
}

func TestUnpackAttributes(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	dir := t.TempDir()
	m := regular(dir+"/ping", "x", 0o755)
	m.Uid = 5
	// cap_net_raw=ep, which a later chown would clear (capabilities(7)).
	const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	attrs := map[string]string{"user.note": "a=b", "user.a=b%3D": "\x00", "security.capability": capability}
	for name, value := range attrs {
		SetXattr(&m.Header, name, value)
	}
	if err := unpack(archive(t, dir, m)); err != nil {
		t.Fatal(err)
	}
	for name, want := range attrs {
		buf := make([]byte, 100)
		if n, err := unix.Lgetxattr(m.Name, name, buf); err != nil || string(buf[:n]) != want {
			t.Errorf("%s is %q, %v; want %q", name, buf[:max(n, 0)], err, want)
		}
	}
}

func TestUnpackErrors(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, dir+"/file", "kept")
	attribute := regular(dir+"/attribute", "x", 0o644)
	SetXattr(&attribute.Header, "nonsense.name", "x")
	fifo := member{tar.Header{Typeflag: tar.TypeFifo, Name: dir + "/fifo"}, ""}
	for _, tc := range []struct {
		name, want string
		in         member
	}{
		{"directory in the way", "a directory is there", regular(dir+"/dir", "x", 0o644)},
		{"file in the way", "not a directory", regular(dir+"/file/x", "x", 0o644)},
		{"climbs", "not a clean absolute path", regular(dir+"/x/../y", "x", 0o644)},
		{"attribute nobody has", "set attribute nonsense.name", attribute},
		{"pipe", `a file of type '6'`, fifo},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := unpack(archive(t, dir, tc.in))
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), filepath.Clean(dir)) {
				t.Errorf("unpack: %v, want %q and the file's name", err, tc.want)
			}
			nothingNew(t, dir)
			holds(t, dir+"/file", "kept")
		})
	}
	t.Run("cut", func(t *testing.T) {
		whole := archive(t, dir, regular(dir+"/file", strings.Repeat("x", 2000), 0o644)).Bytes()
		if err := unpack(bytes.NewReader(whole[:1024])); err == nil {
			t.Error("a stream that ends early is unpacked")
		}
		nothingNew(t, dir)
		holds(t, dir+"/file", "kept")
	})
}

// TestUnpackTimes: times are kept to the nanosecond, of directories and links as
// well, before 1970 and after 2038.
func TestUnpackTimes(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	dir := t.TempDir()
	early, late := time.Date(1969, 6, 1, 0, 0, 0, 7, time.UTC), time.Date(2107, 1, 1, 0, 0, 0, 123456789, time.UTC)
	put(t, dir+"/target", "")
	members := []member{
		{tar.Header{Typeflag: tar.TypeDir, Name: dir + "/d", Mode: 0o555}, ""},
		{tar.Header{Typeflag: tar.TypeDir, Name: dir + "/d/in", Mode: 0o755}, ""},
		regular(dir+"/d/in/file", "x", 0o600),
		{tar.Header{Typeflag: tar.TypeSymlink, Name: dir + "/d/link", Linkname: dir + "/target"}, ""},
	}
	want := map[string]time.Time{"d": late, "d/in": early, "d/in/file": late, "d/link": early}
	for i := range members {
		SetTime(&members[i].Header, want[strings.TrimPrefix(members[i].Name, dir+"/")])
	}
	if err := unpack(archive(t, dir, members...)); err != nil {
		t.Fatal(err)
	}
	for name, want := range want {
		if fi, err := os.Lstat(dir + "/" + name); err != nil || !fi.ModTime().Equal(want) {
			t.Errorf("%s is of %v, %v; want %v", name, fi.ModTime(), err, want)
		}
	}
	if mode, _, _ := modeOf(t, dir+"/d"); mode&0o7777 != 0o555 {
		t.Errorf("d has mode %o", mode)
	}
	if fi, err := os.Stat(dir + "/target"); err != nil || time.Since(fi.ModTime()) > time.Hour {
		t.Errorf("the link's target got its time: %v, %v", fi.ModTime(), err)
	}
}

func TestUnpackHardLink(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	dir := t.TempDir()
	put(t, dir+"/old", "old")
	link := func(name, to string) member {
		return member{tar.Header{Typeflag: tar.TypeLink, Name: dir + "/" + name, Linkname: dir + "/" + to}, ""}
	}
	stream := []member{regular(dir+"/first", "x", 0o644), link("second", "first"), link("old", "first")}
	for range 2 { // the second time, a link takes the place of the same file
		if err := unpack(archive(t, dir, stream...)); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(dir+"/first", &st); err != nil || st.Nlink != 3 {
			t.Errorf("first has %d names, %v; want 3", st.Nlink, err)
		}
		holds(t, dir+"/old", "x")
		nothingNew(t, dir)
	}
	if err := unpack(archive(t, dir, link("third", "missing"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link to nothing: %v", err)
	}
}

func TestUnpackSparse(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	dir := t.TempDir()
	sparse := func(name string, size int64, content string, data ...Range) member {
		m := regular(dir+"/"+name, content, 0o644)
		SetSparse(&m.Header, size, data)
		return m
	}
	err := unpack(archive(t, dir, sparse("empty", 1<<30, ""), sparse("some", 1<<30, "abcd", Range{4096, 1}, Range{1 << 29, 3}),
		regular(dir+"/after", "whole", 0o644)))
	if err != nil {
		t.Fatal(err)
	}
	for name, blocks := range map[string]int64{"empty": 0, "some": 1 << 10} {
		var st unix.Stat_t
		if err := unix.Stat(dir+"/"+name, &st); err != nil || st.Size != 1<<30 || st.Blocks > blocks {
			t.Errorf("%s has %d bytes in %d blocks, %v", name, st.Size, st.Blocks, err)
		}
	}
	f, err := os.Open(dir + "/some")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at, want := range map[int64]string{4096: "a\x00", 1 << 29: "bcd\x00"} {
		got := make([]byte, len(want))
		if _, err := f.ReadAt(got, at); err != nil || string(got) != want {
			t.Errorf("at %d is %q, %v; want %q", at, got, err, want)
		}
	}
	holds(t, dir+"/after", "whole")

	for name, record := range map[string]string{
		"too few bytes": "100 0:3", "too many": "100 0:5", "beyond the end": "3 0:4", "in no order": "100 50:2 0:2", "overlapping": "100 0:3 2:1",
		"negative": "100 -4:4", "negative length": "100 0:-1 0:5", "no number": "100 x:4", "no size": "x 0:4", "overflow": "9223372036854775807 9223372036854775806:4",
	} {
		m := regular(dir+"/bad", "abcd", 0o644)
		m.PAXRecords = map[string]string{sparseRecord: record}
		if err := unpack(archive(t, dir, m)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(dir + "/bad"); err == nil {
			t.Errorf("%s: the file is there", name)
		}
	}
}

// TestUnpackDefaultACL: files get what they have in the stream, not what the
// directory that came with them hands down.
func TestUnpackDefaultACL(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	dir := t.TempDir()
	d := member{tar.Header{Typeflag: tar.TypeDir, Name: dir + "/d", Mode: 0o750}, ""}
	// user::rwx, user:33:rwx, group::r-x, mask::rwx, other::---
	const acl = "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x07\x00\x21\x00\x00\x00" +
		"\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"
	SetXattr(&d.Header, "system.posix_acl_default", acl)
	if err := unpack(archive(t, dir, d, regular(dir+"/d/file", "x", 0o644))); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 200)
	if n, err := unix.Lgetxattr(dir+"/d", "system.posix_acl_default", buf); err != nil || string(buf[:n]) != acl {
		t.Errorf("the directory's ACL is %q, %v", buf[:max(n, 0)], err)
	}
	if _, err := unix.Lgetxattr(dir+"/d/file", "system.posix_acl_access", buf); err != unix.ENODATA {
		t.Errorf("the file has inherited an ACL: %v", err)
	}
	if mode, _, _ := modeOf(t, dir+"/d/file"); mode&0o7777 != 0o644 {
		t.Errorf("the file has mode %o", mode)
	}
}

func TestUnpackRelative(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "relative"}), w.Close()); err != nil {
		t.Fatal(err)
	}
	if err := unpack(&b); err == nil || !strings.Contains(err.Error(), "not a clean absolute path") {
		t.Errorf("unpack: %v", err)
	}
}
