package mutate

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/disk"
)

// sealedWorld is an image with a FAT volume that no guest on this kernel can see, and
// a directory that stands for the guest's files.
func sealedWorld(t *testing.T) *sealed {
	t.Helper()
	fixtures.Require(t, fixtures.Tools)
	dir := t.TempDir()
	name := filepath.Join(dir, "image.raw")
	writeFile(t, name, "")
	if err := os.Truncate(name, 16<<20); err != nil {
		t.Fatal(err)
	}
	fixtures.Program(t, "", "mkfs.vfat", "-F", "16", name)
	fixtures.Program(t, "old\n", "mcopy", "-i", name, "-", "::LOADER.CONF")
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	i, err := disk.OpenKnown(t.Context(), f, &disk.Layout{
		Volumes: []disk.Volume{{Slot: 1, FS: "ext4"}, {Slot: 2, FS: "vfat", Size: 16 << 20}},
		Mounts:  []disk.Mounted{{Mountpoint: "/", Slot: 1}, {Mountpoint: "/boot/efi", Slot: 2, Options: []string{"umask=0077", "fmask=0137"}}},
	}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	if len(i.Sealed()) == 0 {
		t.Skip("this kernel has vfat")
	}
	system := filepath.Join(dir, "system")
	err = errors.Join(os.MkdirAll(filepath.Join(system, "boot/efi"), 0o755), os.Symlink("boot/efi", filepath.Join(system, "efi")))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(system)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &sealed{i, disk.TreeAt(root)}
}

// item is a file in a stream.
type item struct {
	tar.Header
	content string
}

func regular(name, content string) item {
	return item{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}, content}
}

func (i item) with(change func(*tar.Header)) item {
	change(&i.Header)
	return i
}

// routed sends files through a router, and gives what goes on to the guest.
func routed(t *testing.T, s *sealed, items ...item) (r *router, guest []string, err error) {
	t.Helper()
	var in, out bytes.Buffer
	to := tar.NewWriter(&in)
	for _, i := range items {
		if err := to.WriteHeader(&i.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(to, i.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	r = &router{sealed: s, scratch: t.TempDir(), staged: map[int]*staging{}}
	w := tar.NewWriter(&out)
	err = r.route(tar.NewReader(&in), w)
	if err == nil {
		err = errors.Join(w.Close(), r.fill(t.Context()), r.remove())
	}
	if err != nil {
		return r, nil, err
	}
	if left, err := os.ReadDir(r.scratch); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	for from := tar.NewReader(&out); ; {
		h, err := from.Next()
		if err == io.EOF {
			return r, guest, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(from)
		if err != nil {
			t.Fatal(err)
		}
		when, _, _ := agent.Time(h)
		guest = append(guest, fmt.Sprintf("%s %s %q %d %s %v", h.Name, agent.Owner(h), b, when.UnixNano(), h.Linkname, agent.Xattrs(h)))
	}
}

// TestStreamIsParted: what lies below the ESP, by whatever path, is in its volume, and
// the guest gets the rest as it was.
func TestStreamIsParted(t *testing.T) {
	s := sealedWorld(t)
	when := time.Date(2024, 1, 2, 3, 4, 6, 7, time.UTC)
	folder := func(name string) item { return item{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""} }
	items := []item{
		folder("/boot"), folder("/boot/efi"), folder("/boot/efi/EFI"),
		regular("/boot/efi/EFI/x.efi", "MZ").with(func(h *tar.Header) { agent.SetTime(h, when); agent.SetOwner(h, "root:root") }),
		regular("/boot/efi/loader.conf", "timeout 7\n").with(func(h *tar.Header) { h.Mode = 0o600 }),
		regular("/boot/efi/holes", "ab").with(func(h *tar.Header) {
			agent.SetSparse(h, 100, []agent.Range{{Offset: 10, Length: 1}, {Offset: 90, Length: 1}})
		}),
		regular("/efi/by/link", "link"), folder("/efi/none"),
		regular("/etc/motd", "hello").with(func(h *tar.Header) {
			agent.SetTime(h, when)
			agent.SetOwner(h, "www-data:adm")
			agent.SetXattr(h, "user.x=y", "1")
		}),
		{tar.Header{Typeflag: tar.TypeLink, Name: "/etc/same", Linkname: "/etc/motd"}, ""},
		regular("/"+strings.Repeat("long/", 60)+"name", "x"),
	}
	r, guest, err := routed(t, s, items...)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`/boot 0:0 "" -6795364578871345152  map[]`,
		fmt.Sprintf(`/etc/motd www-data:adm "hello" %d  map[user.x=y:1]`, when.UnixNano()),
		`/etc/same 0:0 "" -6795364578871345152 /etc/motd map[]`,
		"/" + strings.Repeat("long/", 60) + `name 0:0 "x" -6795364578871345152  map[]`,
	}
	if got := strings.Join(guest, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("the guest gets\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	for name, content := range map[string]string{
		"/boot/efi/EFI/x.efi": "MZ", "/efi/EFI/x.efi": "MZ", "/boot/efi/loader.conf": "timeout 7\n", "/boot/efi/LOADER.CONF": "timeout 7\n",
		"/boot/efi/by/link": "link",
		"/boot/efi/holes":   strings.Repeat("\x00", 10) + "a" + strings.Repeat("\x00", 79) + "b" + strings.Repeat("\x00", 9),
	} {
		if b, ok, err := s.readFile(name); !ok || err != nil || string(b) != content {
			t.Errorf("%s holds %q, %t, %v", name, b, ok, err)
		}
	}
	for name, want := range map[string]agent.Stat{
		"/boot/efi/EFI/x.efi": {Mode: 0o640, Size: 2, UID: -1, GID: -1}, "/efi/none": {Mode: 0o700, Type: os.ModeDir, UID: -1, GID: -1},
		"/boot/efi": {Mode: 0o700, Type: os.ModeDir, UID: -1, GID: -1},
	} {
		if st, ok, err := s.stat(name); !ok || err != nil || *st != want {
			t.Errorf("%s is %+v, %t, %v", name, st, ok, err)
		}
	}
	if _, ok, err := s.stat("/boot/efi/gone"); !ok || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not there: %t, %v", ok, err)
	}
	if _, ok, _ := s.stat("/etc/motd"); ok {
		t.Error("what is the guest's is asked of the volume")
	}
	if got := r.lost(); !strings.HasPrefix(got, "/boot/efi/loader.conf (0600): a FAT volume keeps no permissions") {
		t.Errorf("the note %q", got)
	}
}

// TestStreamThatFATCannotHold: what would be lost is an error.
func TestStreamThatFATCannotHold(t *testing.T) {
	s := sealedWorld(t)
	link := func(typeflag byte, name, to string) item {
		return item{tar.Header{Typeflag: typeflag, Name: name, Linkname: to}, ""}
	}
	for _, tc := range []struct {
		name  string
		items []item
		why   string
	}{
		{"a symbolic link", []item{link(tar.TypeSymlink, "/boot/efi/link", "x")},
			"write /boot/efi/link: it is on a FAT volume, which has files and"},
		{"a hard link", []item{regular("/boot/efi/a", ""), link(tar.TypeLink, "/boot/efi/b", "/boot/efi/a")}, "no links"},
		{"a hard link from outside", []item{link(tar.TypeLink, "/etc/b", "/boot/efi/a")}, "has no links"},
		{"an owner", []item{regular("/boot/efi/a", "").with(func(h *tar.Header) { agent.SetOwner(h, "www-data") })}, "belong to www-data"},
		{"an owner's number", []item{regular("/boot/efi/a", "").with(func(h *tar.Header) { h.Gid = 7 })}, "belong to 0:7"},
		{"an attribute", []item{regular("/boot/efi/a", "").with(func(h *tar.Header) { agent.SetXattr(h, "user.x", "1") })}, "has user.x"},
		{"a name", []item{regular("/boot/efi/a:b", "")}, "FAT cannot have a name with one of"},
		{"a file over a directory", []item{regular("/boot/efi/a/b", ""), regular("/boot/efi/a", "")}, "is a directory"},
		{"too much", []item{regular("/boot/efi/a", "").with(func(h *tar.Header) { agent.SetSparse(h, 17<<20, nil) })}, "no room for it"},
	} {
		_, _, err := routed(t, s, tc.items...)
		if err == nil || !strings.Contains(err.Error(), tc.why) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.why)
		}
		if errors.Is(err, syscall.ENOSPC) != (tc.name == "too much") {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	if b, _, err := s.readFile("/boot/efi/loader.conf"); err != nil || string(b) != "old\n" {
		t.Errorf("what was there holds %q, %v", b, err)
	}
}

// TestModesOfFAT are what mount(8) says.
func TestModesOfFAT(t *testing.T) {
	for _, tc := range []struct {
		options   string
		file, dir uint32
	}{
		{"", 0o755, 0o755}, {"umask=0077", 0o700, 0o700}, {"fmask=0137,dmask=027", 0o640, 0o750}, {"dmask=0000,umask=0077", 0o700, 0o777},
		{"umask=x", 0o755, 0o755},
	} {
		options := strings.Split(tc.options, ",")
		if file, dir := fatMode(options, false), fatMode(options, true); file != tc.file || dir != tc.dir {
			t.Errorf("%q: %04o and %04o, want %04o and %04o", tc.options, file, dir, tc.file, tc.dir)
		}
	}
}

// TestCommandsAboutWhatTheyCannotSee are told by the place that they name.
func TestCommandsAboutWhatTheyCannotSee(t *testing.T) {
	s := sealedWorld(t)
	for _, tc := range []struct {
		command agent.Command
		want    string
	}{
		{agent.Command{Script: "test -e /boot/efi/EFI"}, "/boot/efi"}, {agent.Command{Argv: []string{"ls", "/boot/efi"}}, "/boot/efi"},
		{agent.Command{Script: "test -e /boot/grub"}, ""},
	} {
		if got := s.mentioned(tc.command); got != tc.want {
			t.Errorf("%v: %q, want %q", tc.command, got, tc.want)
		}
	}
	if got := (*sealed)(nil).mentioned(agent.Command{Script: "/boot/efi"}); got != "" {
		t.Errorf("nothing is sealed, and it is %q", got)
	}
}
