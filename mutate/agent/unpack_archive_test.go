package agent

import (
	"archive/tar"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
)

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
	err := unpack(archive(t, dir, sparse("empty", 1<<30, ""),
		sparse("some", 1<<30, "abcd", Range{4096, 1}, Range{1 << 29, 3}),
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
		"too few bytes": "100 0:3", "too many": "100 0:5", "beyond the end": "3 0:4", "in no order": "100 50:2 0:2",
		"overlapping": "100 0:3 2:1", "negative": "100 -4:4", "negative length": "100 0:-1 0:5", "no number": "100 x:4", "no size": "x 0:4",
		"overflow": "9223372036854775807 9223372036854775806:4",
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
