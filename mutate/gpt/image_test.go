package gpt_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/gpt"
)

var le = binary.LittleEndian

// command runs a program on the image, which becomes its last argument; for
// sectors that are not of 512 bytes, through a loop device.
func command(t testing.TB, sector int, img, stdin, name string, args ...string) string {
	t.Helper()
	fixtures.Require(t, fixtures.Tools)
	target := img
	if sector != 512 {
		fixtures.Require(t, fixtures.Root)
		out, err := exec.Command("losetup", "--find", "--show", "--sector-size", "4096", img).CombinedOutput()
		if err != nil {
			t.Fatalf("losetup: %v: %s", err, out)
		}
		target = strings.TrimSpace(string(out))
		defer exec.Command("losetup", "--detach", target).Run()
	}
	cmd := exec.Command(name, append(args, target)...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	// sgdisk -v tells its verdict in words.
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || name != "sgdisk" || args[0] != "-v") {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	// The name differs between runs.
	return strings.ReplaceAll(string(out), target, "IMAGE")
}

func sgdisk(t testing.TB, sector int, img string, args ...string) string {
	t.Helper()
	if testing.Short() && args[0] != "-v" {
		t.Skip("after each change sgdisk waits for all disks of the machine, and then a second")
	}
	return command(t, sector, img, "", "sgdisk", args...)
}

func sfdisk(t testing.TB, sector int, img, script string, args ...string) string {
	t.Helper()
	return command(t, sector, img, script, "sfdisk", append([]string{"--no-reread", "--no-tell-kernel"}, args...)...)
}

// run runs a program with just these arguments.
func run(t testing.TB, name string, args ...string) {
	t.Helper()
	fixtures.Require(t, fixtures.Tools)
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// blank makes a sparse file of that many bytes.
func blank(t testing.TB, size int64) string {
	t.Helper()
	img := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return img
}

func slurp(t testing.TB, img string) []byte {
	t.Helper()
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// patch changes the image's bytes by hand.
func patch(t testing.TB, img string, change func(b []byte) []byte) {
	t.Helper()
	if err := os.WriteFile(img, change(slurp(t, img)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, img string) *os.File {
	t.Helper()
	f, err := os.OpenFile(img, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func read(t testing.TB, f *os.File) *gpt.Table {
	t.Helper()
	table, err := gpt.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// raw is one copy of a table as the tests see it, without the package's help.
type raw struct {
	img    []byte
	sector int
	lba    uint64
}

func primary(img []byte, sector int) raw { return raw{img, sector, 1} }
func backup(img []byte, sector int) raw {
	return raw{img, sector, le.Uint64(img[sector+32:])}
}
func both(img []byte, sector int) []raw { return []raw{primary(img, sector), backup(img, sector)} }

func (r raw) header() []byte { return r.img[int(r.lba)*r.sector:][:r.sector] }
func (r raw) array() []byte {
	h := r.header()
	return r.img[int(le.Uint64(h[72:]))*r.sector:][:le.Uint32(h[80:])*le.Uint32(h[84:])]
}
func (r raw) entry(slot int) []byte {
	n := int(le.Uint32(r.header()[84:]))
	return r.array()[(slot-1)*n:][:n]
}

// sealHeader makes the header's checksum true.
func (r raw) sealHeader() {
	h := r.header()
	n := min(le.Uint32(h[12:]), uint32(r.sector))
	le.PutUint32(h[16:], 0)
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:n]))
}

// seal makes both checksums true.
func (r raw) seal() {
	le.PutUint32(r.header()[88:], crc32.ChecksumIEEE(r.array()))
	r.sealHeader()
}

// wire is a GUID as the table holds it.
func wire(g uuid.UUID) []byte {
	b := bytes.Clone(g[:])
	le.PutUint32(b, binary.BigEndian.Uint32(g[:]))
	le.PutUint16(b[4:], binary.BigEndian.Uint16(g[4:]))
	le.PutUint16(b[6:], binary.BigEndian.Uint16(g[6:]))
	return b
}

// expected is what an edit must make of an image, byte for byte.
func expected(before []byte, sector int, e gpt.Edit) []byte {
	img := bytes.Clone(before)
	for _, r := range both(img, sector) {
		if e.Disk != nil {
			copy(r.header()[56:72], wire(*e.Disk))
		}
		for slot, g := range e.Types {
			copy(r.entry(slot)[:16], wire(g))
		}
		for slot, g := range e.GUIDs {
			copy(r.entry(slot)[16:32], wire(g))
		}
		for slot, bits := range e.Set {
			le.PutUint64(r.entry(slot)[48:], le.Uint64(r.entry(slot)[48:])|bits)
		}
		for slot, bits := range e.Clear {
			le.PutUint64(r.entry(slot)[48:], le.Uint64(r.entry(slot)[48:])&^bits)
		}
		r.seal()
	}
	return img
}

// layout describes an image that no tool would make, or none so small.
type layout struct {
	sector, sectors    int
	entrySize, entries int
	primaryArray       int // LBA; the backup's array is right before its header
	firstUsable        int
	parts              [][2]int // first and last LBA, by slot
	headerSize         int
}

// small is the smallest usual table: four slots, in one sector of 512 bytes.
func small() layout {
	return layout{sector: 512, sectors: 64, entrySize: 128, entries: 4, primaryArray: 2, firstUsable: 3,
		parts: [][2]int{{4, 9}, {20, 39}}, headerSize: 92}
}

// craft makes the image of a layout, with equal content on each call.
func craft(l layout) []byte {
	img := make([]byte, l.sector*l.sectors)
	copy(img[446:], []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0})
	le.PutUint32(img[446+12:], uint32(l.sectors-1))
	img[510], img[511] = 0x55, 0xaa
	span := (l.entrySize*l.entries + l.sector - 1) / l.sector
	last := l.sectors - 1
	for lba, alt := range map[int]int{1: last, last: 1} {
		array := l.primaryArray
		if lba == last {
			array = last - span
		}
		h := img[lba*l.sector:]
		copy(h, "EFI PART\x00\x00\x01\x00")
		le.PutUint32(h[12:], uint32(l.headerSize))
		le.PutUint64(h[24:], uint64(lba))
		le.PutUint64(h[32:], uint64(alt))
		le.PutUint64(h[40:], uint64(l.firstUsable))
		le.PutUint64(h[48:], uint64(last-span-1))
		copy(h[56:], wire(uuid.NewSHA1(uuid.Nil, []byte("disk"))))
		le.PutUint64(h[72:], uint64(array))
		le.PutUint32(h[80:], uint32(l.entries))
		le.PutUint32(h[84:], uint32(l.entrySize))
		for i := 92; i < l.headerSize; i++ {
			h[i] = byte(i)
		}
		for i, p := range l.parts {
			e := img[array*l.sector+i*l.entrySize:]
			copy(e, wire(gpt.TypeLinuxGeneric))
			copy(e[16:], wire(uuid.NewSHA1(uuid.Nil, []byte{byte(i)})))
			le.PutUint64(e[32:], uint64(p[0]))
			le.PutUint64(e[40:], uint64(p[1]))
			copy(e[56:], "p\x00")
			for k := 128; k < l.entrySize; k++ {
				e[k] = byte(k + i)
			}
		}
	}
	for _, r := range both(img, l.sector) {
		r.seal()
	}
	return img
}

// crafted writes the image of a layout to a file.
func crafted(t testing.TB, l layout) string {
	t.Helper()
	img := blank(t, 0)
	patch(t, img, func([]byte) []byte { return craft(l) })
	return img
}
