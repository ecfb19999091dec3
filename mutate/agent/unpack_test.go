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
	if err := errors.Join(os.Link(dir+"/old", dir+"/other-name"), os.Symlink("target", dir+"/link"),
		os.Symlink("nowhere", dir+"/dangling")); err != nil {
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
	if err := errors.Join(os.Mkdir(dir+"/there", 0o700), os.Symlink("there", dir+"/link"),
		os.Chown(dir+"/there", 5, 6)); err != nil {
		t.Fatal(err)
	}
	put(t, dir+"/there/file", "kept")
	put(t, dir+"/file", "")
	err := unpack(archive(t, dir, directory("there", 0o755), directory("link", 0o755),
		regular(dir+"/link/through", "x", 0o644), directory("new", 0o2770), regular(dir+"/new/in", "y", 0o600)))
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
	if err := unpack(archive(t, dir, directory("file", 0o755))); err == nil ||
		!strings.Contains(err.Error(), "not a directory") {
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
		return member{tar.Header{Typeflag: tar.TypeSymlink, Name: dir + "/" + name, Linkname: target, Uid: 9, Gid: 9,
			Mode: 0o777}, ""}
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
