package gpt_test

import (
	"bytes"
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/imgmut/imgmut/mutate/gpt"
)

// damage is one way for a table to be bad, and what must be said of it.
type damage struct {
	name, where, what, mend string
	layout                  func(*layout)
	damage                  func(b []byte) []byte
}

// damages are tables that must be refused. Those with a layout of their own
// are crafted; the others are what sfdisk made, then damaged.
var damages = []damage{
	// One copy.
	{name: "primary signature", where: "primary GPT", what: "no signature", mend: "sgdisk -e",
		damage: func(b []byte) []byte { clear(b[512:520]); return b }},
	{name: "primary header", where: "primary GPT", what: "header checksum", mend: "sgdisk -e",
		damage: func(b []byte) []byte { b[512+57]++; return b }},
	{name: "primary array", where: "primary GPT", what: "checksum of the entries", mend: "sgdisk -e",
		damage: func(b []byte) []byte { b[1024+130]++; return b }},
	{name: "front wiped", where: "primary GPT", what: "no signature",
		damage: func(b []byte) []byte { clear(b[:mib]); return b }},
	{name: "backup signature", where: "backup GPT", what: "no signature", mend: "sgdisk -e",
		damage: func(b []byte) []byte { clear(b[len(b)-512:]); return b }},
	{name: "backup header", where: "backup GPT", what: "header checksum", mend: "sgdisk -e",
		damage: func(b []byte) []byte { b[len(b)-512+57]++; return b }},
	{name: "backup array", where: "backup GPT", what: "checksum of the entries", mend: "sgdisk -e",
		damage: func(b []byte) []byte { b[len(b)-33*512]++; return b }},
	{name: "grown, backup header", where: "backup GPT", what: "no signature", mend: "sgdisk -e",
		damage: func(b []byte) []byte { clear(b[len(b)-512:]); return append(b, make([]byte, mib)...) }},
	{name: "backup of an older table", where: "backup GPT", what: "differs from the primary in slot 2",
		mend:   "sfdisk --dump",
		damage: func(b []byte) []byte { backup(b, 512).entry(2)[20]++; backup(b, 512).seal(); return b }},
	{name: "backup of another disk", where: "backup GPT", what: "differs from the primary in the disk GUID",
		mend:   "sfdisk --dump",
		damage: func(b []byte) []byte { backup(b, 512).header()[60]++; backup(b, 512).seal(); return b }},
	{name: "backup points elsewhere", where: "backup GPT", what: "says that the primary is in sector 5",
		mend:   "sfdisk --dump",
		damage: func(b []byte) []byte { le.PutUint64(backup(b, 512).header()[32:], 5); backup(b, 512).seal(); return b }},
	{name: "primary says it is elsewhere", where: "primary GPT", what: "at sector 1 says it is at sector 9",
		mend:   "sfdisk --dump",
		damage: func(b []byte) []byte { le.PutUint64(b[512+24:], 9); primary(b, 512).seal(); return b }},
	{name: "no protective MBR", where: "protective MBR", what: "no entry of type 0xee", mend: "sgdisk -e",
		damage: func(b []byte) []byte { clear(b[:512]); return b }},

	{name: "DOS table instead of the protective MBR", where: "protective MBR", what: "no entry of type 0xee",
		damage: func(b []byte) []byte { b[446+4] = 0x83; return b }},
	{name: "primary header of unusual entries", where: "primary GPT", what: "header checksum",
		layout: func(l *layout) { l.entrySize, l.firstUsable, l.parts = 256, 6, nil },
		damage: func(b []byte) []byte { b[512+57]++; return b }},

	// Both, or the file.
	{name: "truncated", where: "backup GPT", what: "truncated",
		damage: func(b []byte) []byte { return b[:len(b)-mib] }},
	{name: "truncated within the last sector", where: "backup GPT", what: "truncated",
		damage: func(b []byte) []byte { return b[:len(b)-1] }},
	{name: "truncated to the header", where: "backup GPT", what: "truncated",
		damage: func(b []byte) []byte { return b[:1024] }},
	{name: "truncated before the header", where: "both GPT copies", what: "sector 0 announces a table",
		damage: func(b []byte) []byte { return b[:512] }},
	{name: "both headers gone", where: "both GPT copies", what: "sector 0 announces a table",
		damage: func(b []byte) []byte { clear(b[512:1024]); clear(b[len(b)-512:]); return b }},
	{name: "grown, primary gone", where: "both GPT copies", what: "sector 0 announces a table",
		damage: func(b []byte) []byte { clear(b[512:1024]); return append(b, make([]byte, mib)...) }},
	{name: "a header and an array", where: "both GPT copies",
		what:   "primary: header checksum does not match; backup: checksum of the entries",
		damage: func(b []byte) []byte { b[512+57]++; b[len(b)-33*512]++; return b }},
	{name: "tables for two sector sizes", where: "both GPT copies", what: "512 bytes and another for 4096",
		layout: func(l *layout) { l.sectors, l.primaryArray, l.firstUsable, l.parts = 512, 40, 50, nil },
		damage: func(b []byte) []byte {
			copy(b[4096:], craft(layout{sector: 4096, sectors: 64, entrySize: 128, entries: 4, primaryArray: 2, firstUsable: 3,
				headerSize: 92})[4096:8192])
			return b
		}},

	// Sizes and addresses, all with true checksums.
	header("entry count, would be 549 GB", "entry count is 4294967295", 80, math.MaxUint32, 4),
	header("no entries", "entry count is 0", 80, 0, 4),
	header("entry size and count overflow", "entry count is 1073741824", 80, 1<<30, 4),
	header("entry size zero", "entry size is 0", 84, 0, 4),
	header("entry size too small", "entry size is 64", 84, 64, 4),
	header("entry size odd", "entry size is 129", 84, 129, 4),
	header("entry size huge", "entry count is 128, want 1 to 0", 84, 1<<31, 4),
	header("array behind the file", "reach beyond the end of the file", 72, 24*mib/512, 8),
	header("array address overflows", "reach beyond the end of the file", 72, math.MaxUint64, 8),
	header("array address negative as bytes", "reach beyond the end of the file", 72, 1<<55, 8),
	header("header size small", "header size is 91", 12, 91, 4),
	header("header size huge", "header size is 4294967295", 12, math.MaxUint32, 4),
	header("header larger than a sector", "header size is 513", 12, 513, 4),
	header("revision", "revision is 0x20000", 8, 0x20000, 4),
	{name: "alternate is the primary", where: "primary GPT", what: "says that the backup is in sector 1",
		mend:   "sgdisk -e",
		damage: func(b []byte) []byte { le.PutUint64(b[512+32:], 1); primary(b, 512).sealHeader(); return b }},
	{name: "alternate overflows", where: "backup GPT", what: "truncated",
		damage: func(b []byte) []byte {
			le.PutUint64(b[512+32:], math.MaxUint64)
			primary(b, 512).sealHeader()
			return b
		}},

	// Layout, equal in both copies.
	table("usable range reversed", "is not within",
		func(r raw) { le.PutUint64(r.header()[40:], 40000); le.PutUint64(r.header()[48:], 39999) }),
	table("usable range beyond the file", "is not within", func(r raw) { le.PutUint64(r.header()[48:], math.MaxUint64) }),
	table("usable range over the backup", "the usable range and the backup array overlap",
		func(r raw) { le.PutUint64(r.header()[48:], 49151) }),
	table("usable range over the primary array", "the primary array and the usable range overlap",
		func(r raw) { le.PutUint64(r.header()[40:], 33) }),
	table("partition ends before its start", "partition 2 ends at sector 8191, before its start",
		func(r raw) { le.PutUint64(r.entry(2)[40:], 8191) }),
	table("partition before the usable range", "partition 1 from sector 0 to 6143 is outside",
		func(r raw) { le.PutUint64(r.entry(1)[32:], 0) }),
	table("partition behind the usable range", "partition 2 from sector 8192 to 18446744073709551615 is outside",
		func(r raw) { le.PutUint64(r.entry(2)[40:], math.MaxUint64) }),
	table("partitions overlap", "partition 1 and partition 2 overlap at sector 8192",
		func(r raw) { le.PutUint64(r.entry(1)[40:], 8192) }),
	// Both arrays at one place: a write of one copy would damage the other.
	{name: "copies share an array", where: "both GPT copies", what: "the primary array and the backup array overlap",
		damage: func(b []byte) []byte {
			copy(backup(b, 512).header()[72:80], b[512+72:512+80])
			backup(b, 512).seal()
			return b
		}},
	{name: "array on the MBR", where: "both GPT copies", what: "the MBR and the primary array overlap",
		damage: func(b []byte) []byte {
			// In the place of the first entry, the MBR reads as a partition; the
			// backup gets the same entries.
			le.PutUint64(b[512+72:], 0)
			for _, r := range both(b, 512) {
				le.PutUint32(r.header()[80:], 4)
			}
			copy(b[32:48], []byte{0, 0x20, 0, 0, 0, 0, 0, 0, 0xff, 0x20})
			copy(backup(b, 512).array(), b[:512])
			for _, r := range both(b, 512) {
				r.seal()
			}
			return b
		}},
}

// header damages one field of both headers, whose own checksums stay true.
func header(name, what string, off int, value uint64, size int) damage {
	return damage{name: name, where: "both GPT copies", what: what, damage: func(b []byte) []byte {
		copies := both(b, 512)
		for _, r := range copies {
			copy(r.header()[off:off+size], le.AppendUint64(nil, value))
			r.sealHeader()
		}
		return b
	}}
}

// table damages both copies alike; all checksums stay true.
func table(name, what string, change func(raw)) damage {
	return damage{name: name, where: "both GPT copies", what: what, damage: func(b []byte) []byte {
		for _, r := range both(b, 512) {
			change(r)
			r.seal()
		}
		return b
	}}
}

func (d damage) image(t *testing.T) string {
	img := blank(t, 24*mib)
	if d.layout == nil {
		usual("")(t, img)
	} else {
		l := small()
		d.layout(&l)
		patch(t, img, func([]byte) []byte { return craft(l) })
	}
	patch(t, img, d.damage)
	return img
}

func TestDamage(t *testing.T) {
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel() // sgdisk waits a second for a kernel that is not there
			img := d.image(t)
			f, before := open(t, img), slurp(t, img)
			_, err := gpt.Read(f)
			d.verify(t, "Read", err)
			d.verify(t, "Apply", gpt.Apply(f, gpt.Edit{Types: map[int]uuid.UUID{2: gpt.TypeRootX86_64}}))
			if !bytes.Equal(slurp(t, img), before) {
				t.Fatal("the file changed")
			}
			d.mended(t, img)
		})
	}
}

// verify checks that err names the fault.
func (d damage) verify(t *testing.T, call string, err error) {
	t.Helper()
	var got *gpt.DamageError
	if !errors.As(err, &got) {
		t.Fatalf("%s() = %v, want a *DamageError", call, err)
	}
	if got.Where != d.where || !strings.Contains(got.What, d.what) {
		t.Errorf("%s() = %q, want %s: %s", call, got, d.where, d.what)
	}
	if d.mend != "" && !strings.Contains(got.Mend, d.mend) || d.mend == "" && strings.Contains(got.Mend, "sgdisk") {
		t.Errorf("%s() advises %q, want %q", call, got.Mend, d.mend)
	}
	if text := err.Error(); strings.Contains(text, "\n") || strings.ToLower(text[:1]) != text[:1] {
		t.Errorf("%s() = %q, want one lower-case line", call, text)
	}
}

// mended takes the advice of the error and checks that it was good.
func (d damage) mended(t *testing.T, img string) {
	t.Helper()
	switch d.mend {
	case "":
		return
	case "sgdisk -e":
		sgdisk(t, 512, img, "-e")
	case "sfdisk --dump":
		dump := sfdisk(t, 512, img, "", "--dump")
		sfdisk(t, 512, img, dump[strings.Index(dump, "label:"):]) // without the warnings
	}
	p := read(t, open(t, img)).Partitions
	if len(p) != 2 || p[0].Name != "esp" || p[1].Name != "root" || p[1].Start != 8192*512 {
		t.Errorf("after the mend, partitions are %+v", p)
	}
	if out := sgdisk(t, 512, img, "-v"); !strings.Contains(out, "No problems found") {
		t.Errorf("after the mend, sgdisk -v says:\n%s", out)
	}
}

// TestDamageSectors: on a file with sectors of 4096 bytes, sgdisk alone would
// write a new, empty table.
func TestDamageSectors(t *testing.T) {
	img := blank(t, 24*mib)
	sgdisk(t, 4096, img, "-n", "1:512:1023", "-c", "1:root")
	patch(t, img, func(b []byte) []byte { clear(b[4096:8192]); return b })
	_, err := gpt.Read(open(t, img))
	var damage *gpt.DamageError
	if !errors.As(err, &damage) || damage.Where != "primary GPT" ||
		!strings.Contains(damage.Mend, "losetup --sector-size 4096") {
		t.Fatalf("Read() = %#v", err)
	}
	sgdisk(t, 4096, img, "-e")
	if p := read(t, open(t, img)).Partitions; len(p) != 1 || p[0].Name != "root" {
		t.Errorf("after the mend, partitions are %+v", p)
	}
}

func TestNoTable(t *testing.T) {
	random := func(n int) func(b []byte) []byte {
		return func([]byte) []byte {
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(i * i >> 3)
			}
			return b
		}
	}
	for name, build := range map[string]func(b []byte) []byte{
		"empty":       func([]byte) []byte { return nil },
		"one byte":    random(1),
		"one sector":  random(512),
		"two sectors": random(1024),
		"other bytes": random(mib),
		"zeros":       func([]byte) []byte { return make([]byte, mib) },
		"boot sector": func([]byte) []byte { b := make([]byte, mib); b[510], b[511] = 0x55, 0xaa; return b },
	} {
		t.Run(name, func(t *testing.T) {
			img := blank(t, 0)
			patch(t, img, build)
			f, before := open(t, img), slurp(t, img)
			if _, err := gpt.Read(f); !errors.Is(err, gpt.ErrNoTable) {
				t.Errorf("Read() = %v, want ErrNoTable", err)
			}
			if err := gpt.Apply(f, gpt.Edit{}); !errors.Is(err, gpt.ErrNoTable) {
				t.Errorf("Apply() = %v, want ErrNoTable", err)
			}
			if _, err := gpt.ReadMBR(f); !errors.Is(err, gpt.ErrNoTable) {
				t.Errorf("ReadMBR() = %v, want ErrNoTable", err)
			}
			if !bytes.Equal(slurp(t, img), before) {
				t.Error("the file changed")
			}
		})
	}
}

// TestReadNotAFile: what has no size of its own is not an image.
func TestReadNotAFile(t *testing.T) {
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := gpt.Read(f); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("Read(directory) = %v", err)
	}
}
