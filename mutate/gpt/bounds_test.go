package gpt_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/gpt"
)

// TestSoundToTheLastSector: what a table may just be is taken, and can be edited.
func TestSoundToTheLastSector(t *testing.T) {
	for _, tc := range []struct {
		name  string
		image func() []byte
		want  []gpt.Partition // what the table has, but for types and GUIDs
	}{
		{"one usable sector, and a partition in it", func() []byte {
			l := small()
			l.sectors, l.parts = 6, [][2]int{{3, 3}}
			return craft(l)
		}, []gpt.Partition{{Slot: 1, Start: 3 * 512, Size: 512, Name: "p"}}},
		{"partitions side by side, from the first sector to the last", func() []byte {
			l := small()
			l.parts = [][2]int{{3, 9}, {10, 61}}
			return craft(l)
		}, []gpt.Partition{{Slot: 1, Start: 3 * 512, Size: 7 * 512, Name: "p"},
			{Slot: 2, Start: 10 * 512, Size: 52 * 512, Name: "p"}}},
		{"a partition in the last slot", func() []byte {
			l := small()
			l.parts = [][2]int{{4, 9}, {10, 19}, {20, 29}, {30, 39}}
			return craft(l)
		}, []gpt.Partition{{Slot: 1, Start: 4 * 512, Size: 6 * 512, Name: "p"},
			{Slot: 2, Start: 10 * 512, Size: 10 * 512, Name: "p"},
			{Slot: 3, Start: 20 * 512, Size: 10 * 512, Name: "p"}, {Slot: 4, Start: 30 * 512, Size: 10 * 512, Name: "p"}}},
		{"the largest array that Linux reads", func() []byte {
			l := small()
			l.entries, l.firstUsable, l.sectors, l.parts = 32768, 8194, 2*8192+10, [][2]int{{8194, 8196}}
			return craft(l)
		}, []gpt.Partition{{Slot: 1, Start: 8194 * 512, Size: 3 * 512, Name: "p"}}},
		{"the backup array in the last sector, of a file that was grown", func() []byte {
			b := append(craft(small()), make([]byte, 512)...)
			r := backup(b, 512)
			copy(b[64*512:], r.array())
			le.PutUint64(r.header()[72:], 64)
			r.seal()
			return b
		}, []gpt.Partition{{Slot: 1, Start: 4 * 512, Size: 6 * 512, Name: "p"},
			{Slot: 2, Start: 20 * 512, Size: 20 * 512, Name: "p"}}},
		{"a name of 36 letters", func() []byte {
			b := craft(small())
			for _, r := range both(b, 512) {
				copy(r.entry(2)[56:], bytes.Repeat([]byte{'n', 0}, 36))
				r.seal()
			}
			return b
		}, []gpt.Partition{{Slot: 1, Start: 4 * 512, Size: 6 * 512, Name: "p"},
			{Slot: 2, Start: 20 * 512, Size: 20 * 512, Name: strings.Repeat("n", 36)}}},
	} {
		img := blank(t, 0)
		patch(t, img, func([]byte) []byte { return tc.image() })
		f := open(t, img)
		table, err := gpt.Read(f)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		var got []gpt.Partition
		for _, p := range table.Partitions {
			got = append(got, gpt.Partition{Slot: p.Slot, Start: p.Start, Size: p.Size, Name: p.Name})
		}
		if fmt.Sprint(got) != fmt.Sprint(tc.want) {
			t.Errorf("%s: partitions %v, want %v", tc.name, got, tc.want)
		}
		e, before := everything(table), slurp(t, img)
		if err := gpt.Apply(f, e); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if !bytes.Equal(slurp(t, img), expected(before, 512, e)) {
			t.Errorf("%s: the edit changed other bytes, or not all", tc.name)
		}
	}
}

// TestDamagedByOne: one sector, slot or byte too far is too far.
func TestDamagedByOne(t *testing.T) {
	for _, tc := range []struct {
		name, where, what string
		damage            func(b []byte) []byte
	}{
		{"remains of another table, for sectors of 4096 bytes", "both GPT copies", "primary: header checksum does not match",
			func(b []byte) []byte {
				for _, r := range both(b, 512) {
					r.header()[16] ^= 1
				}
				copy(b[4096:], "EFI PART")
				return b
			}},
		{"the first slot differs", "backup GPT", "slot 1", func(b []byte) []byte {
			r := backup(b, 512)
			r.entry(1)[60] ^= 1
			r.seal()
			return b
		}},
		{"the last slot differs", "backup GPT", "slot 4", func(b []byte) []byte {
			r := backup(b, 512)
			r.entry(4)[60] ^= 1
			r.seal()
			return b
		}},
		{"the file ends before the backup header", "backup GPT", "truncated", func(b []byte) []byte { return b[:63*512] }},
		{"the backup is said to be in sector 2", "backup GPT", "not there", func(b []byte) []byte {
			le.PutUint64(b[512+32:], 2)
			primary(b, 512).sealHeader()
			return b
		}},
		{"the usable range ends behind the file", "both GPT copies", "is not within the 64 sectors", func(b []byte) []byte {
			for _, r := range both(b, 512) {
				le.PutUint64(r.header()[48:], 64)
				r.sealHeader()
			}
			return b
		}},
		{"the array ends behind the file", "both GPT copies", "beyond the end", func(b []byte) []byte {
			for _, r := range both(b, 512) {
				le.PutUint64(r.header()[72:], 63)
				le.PutUint32(r.header()[80:], 8)
				r.sealHeader()
			}
			return b
		}},
		{"the array starts behind the file", "both GPT copies", "beyond the end", func(b []byte) []byte {
			for _, r := range both(b, 512) {
				le.PutUint64(r.header()[72:], 64)
				r.sealHeader()
			}
			return b
		}},
		{"one entry more than Linux reads", "both GPT copies", "entry count is 32769", func(b []byte) []byte {
			for _, r := range both(b, 512) {
				le.PutUint32(r.header()[80:], 32769)
				r.sealHeader()
			}
			return b
		}},
		{"a header of 91 bytes", "both GPT copies", "header size is 91", func(b []byte) []byte {
			for _, r := range both(b, 512) {
				le.PutUint32(r.header()[12:], 91)
				r.sealHeader()
			}
			return b
		}},
		{"a header of 513 bytes", "both GPT copies", "header size is 513", func(b []byte) []byte {
			for _, r := range both(b, 512) {
				le.PutUint32(r.header()[12:], 513)
			}
			return b
		}},
		{"partitions that share a sector", "both GPT copies", "overlap at sector 9", func(b []byte) []byte {
			for _, r := range both(b, 512) {
				le.PutUint64(r.entry(2)[32:], 9)
				r.seal()
			}
			return b
		}},
		{"a partition one sector too early", "both GPT copies", "outside the usable range", func(b []byte) []byte {
			for _, r := range both(b, 512) {
				le.PutUint64(r.entry(1)[32:], 2)
				r.seal()
			}
			return b
		}},
		{"a partition one sector too long", "both GPT copies", "outside the usable range", func(b []byte) []byte {
			for _, r := range both(b, 512) {
				le.PutUint64(r.entry(2)[40:], 62)
				r.seal()
			}
			return b
		}},
		{"a partition that ends before it starts", "both GPT copies", "ends at sector 3, before its start",
			func(b []byte) []byte {
				for _, r := range both(b, 512) {
					le.PutUint64(r.entry(1)[40:], 3)
					r.seal()
				}
				return b
			}},
	} {
		img := crafted(t, small())
		patch(t, img, tc.damage)
		f, before := open(t, img), slurp(t, img)
		_, err := gpt.Read(f)
		var damage *gpt.DamageError
		if !errors.As(err, &damage) || damage.Where != tc.where || !strings.Contains(damage.What, tc.what) {
			t.Errorf("%s: %v, want %s: %s", tc.name, err, tc.where, tc.what)
		}
		if err := gpt.Apply(f, gpt.Edit{}); err == nil || !bytes.Equal(slurp(t, img), before) {
			t.Errorf("%s: an edit gives %v, or changed the file", tc.name, err)
		}
	}
}

// TestMendFitsTheSectors: by themselves the tools take all sectors for 512 bytes.
func TestMendFitsTheSectors(t *testing.T) {
	for sector, want := range map[int]string{
		512:  "run 'sgdisk -e' on a copy of the image, which writes the faulty part anew from the sound one",
		4096: "which writes the faulty part anew from the sound one, attached with 'losetup --sector-size 4096'",
	} {
		l := small()
		l.sector = sector
		img := crafted(t, l)
		patch(t, img, func(b []byte) []byte { clear(b[sector : 2*sector]); return b })
		_, err := gpt.Read(open(t, img))
		var damage *gpt.DamageError
		if !errors.As(err, &damage) || damage.Where != "primary GPT" || !strings.HasSuffix(damage.Mend, want) {
			t.Errorf("sectors of %d bytes: %#v, want the mend %q", sector, err, want)
		}
	}
}

// link is a sector of the chain of logical partitions: the partition, its
// start counted from this sector, and the next sector, counted from the start
// of the extended partition.
type link struct {
	at                 int
	kind               byte
	active             bool
	start, count       int
	nextKind           byte
	nextAt, nextLength int
}

// chain is a DOS table whose extended partition is the sectors 100 to 1099, the
// last of the file.
func chain(links ...link) []byte {
	b := make([]byte, 1100*512)
	entry := func(sector, slot int, kind byte, active bool, start, count int) {
		e := b[sector*512+446+16*slot:]
		if active {
			e[0] = 0x80
		}
		e[4] = kind
		le.PutUint32(e[8:], uint32(start))
		le.PutUint32(e[12:], uint32(count))
		b[sector*512+510], b[sector*512+511] = 0x55, 0xaa
	}
	entry(0, 0, 0x0f, false, 100, 1000)
	for _, l := range links {
		entry(l.at, 0, l.kind, l.active, l.start, l.count)
		entry(l.at, 1, l.nextKind, false, l.nextAt, l.nextLength)
	}
	return b
}

// TestChainOfLogicalPartitions to the last sector: what may be, and what leads
// out of the extended partition or back.
func TestChainOfLogicalPartitions(t *testing.T) {
	endless := func(n int) []byte {
		var links []link
		for i := range n {
			links = append(links, link{at: 100 + i, nextKind: 5, nextAt: i + 1, nextLength: 1})
		}
		links[n-1].nextKind = 0
		return chain(links...)
	}
	for _, tc := range []struct {
		name  string
		image []byte
		want  string // slot:first+count of each, or a part of the error
	}{
		{"empty", chain(link{at: 100}), ""},
		{"no chain", chain(), ""},
		{"one to the last sector", chain(link{at: 100, kind: 0x83, start: 1, count: 999}), "5:101+999"},
		{"one beyond", chain(link{at: 100, kind: 0x83, start: 1, count: 1000}), "outside the extended partition"},
		{"one on its own sector", chain(link{at: 100, kind: 0x83, start: 0, count: 10}), "outside the extended partition"},
		{"active", chain(link{at: 100, kind: 0x83, active: true, start: 1, count: 10}), "5:101+10*"},
		{"of no length", chain(link{at: 100, kind: 0x83, start: 5000}), ""},
		{"of no type", chain(link{at: 100, start: 5000, count: 5000}), ""},
		{"right behind", chain(link{100, 0x83, false, 1, 10, 5, 11, 20},
			link{at: 111, kind: 0x83, start: 1, count: 5}), "5:101+10 6:112+5"},
		{"by another type", chain(link{100, 0x83, false, 1, 10, 0x85, 11, 20},
			link{at: 111, kind: 0x83, start: 1, count: 5}), "5:101+10 6:112+5"},
		{"and another", chain(link{100, 0x83, false, 1, 10, 0x0f, 11, 20},
			link{at: 111, kind: 0x83, start: 1, count: 5}), "5:101+10 6:112+5"},
		{"in it", chain(link{100, 0x83, false, 1, 10, 5, 10, 20}), "what follows partition 5 does not lie behind it"},
		{"an empty one is not counted", chain(link{at: 100, nextKind: 5, nextAt: 1, nextLength: 9},
			link{at: 101, kind: 0x83, start: 1, count: 5}), "5:102+5"},
		{"the same again", chain(link{at: 100, nextKind: 5, nextAt: 0, nextLength: 9}), "does not lie behind"},
		{"in the last sector, where nothing is", chain(link{100, 0x83, false, 1, 10, 5, 999, 1}), "5:101+10"},
		{"behind the last", chain(link{100, 0x83, false, 1, 10, 5, 1000, 1}), "does not lie behind"},
		{"of a type that is none", chain(link{100, 0x83, false, 1, 10, 0x83, 11, 20},
			link{at: 111, kind: 0x83, start: 1, count: 5}), "5:101+10"},
		{"of no length", chain(link{100, 0x83, false, 1, 10, 5, 11, 0},
			link{at: 111, kind: 0x83, start: 1, count: 5}), "5:101+10"},
		{"as long as Linux follows", endless(256), ""},
		{"longer", endless(257), "too long"},
	} {
		img := blank(t, 0)
		patch(t, img, func([]byte) []byte { return tc.image })
		table, err := gpt.ReadMBR(open(t, img))
		if err != nil {
			var damage *gpt.DamageError
			if tc.want == "" || !strings.Contains(err.Error(), tc.want) || !errors.As(err, &damage) {
				t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
			}
			continue
		}
		var words []string
		for _, p := range table.Partitions[1:] {
			word := fmt.Sprintf("%d:%d+%d", p.Slot, p.Start/512, p.Size/512)
			if p.Active {
				word += "*"
			}
			words = append(words, word)
		}
		if got := strings.Join(words, " "); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestPrimaryEntriesThatCount: one without a type or a length is not in use, and
// one that only protects may be longer than the file.
func TestPrimaryEntriesThatCount(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(b []byte)
		want   string
	}{
		{"all four", func([]byte) {}, "1 2 3 4"},
		{"without a type", func(b []byte) { b[446+16+4] = 0 }, "1 3 4"},
		{"without a length", func(b []byte) { le.PutUint32(b[446+32+12:], 0) }, "1 2 4"},
		{"longer than the file", func(b []byte) { le.PutUint32(b[446+48+12:], 1000) }, "the image is truncated"},
		{"to the end of the file", func(b []byte) { le.PutUint32(b[446+48+12:], 60) }, "1 2 3 4"},
		{"by one sector longer", func(b []byte) { le.PutUint32(b[446+48+12:], 61) }, "the image is truncated"},
		{"longer, to protect", func(b []byte) { b[446+48+4] = 0xee; le.PutUint32(b[446+48+12:], 1000) }, "1 2 3 4"},
		{"one that shares a sector", func(b []byte) { le.PutUint32(b[446+12:], 11) }, "overlap"},
		{"none", func(b []byte) { clear(b[446 : 446+64]) }, "no partition table"},
	} {
		b := make([]byte, 100*512)
		b[510], b[511] = 0x55, 0xaa
		for i := range 4 {
			e := b[446+16*i:]
			e[4] = 0x83
			le.PutUint32(e[8:], uint32(10+10*i))
			le.PutUint32(e[12:], 10)
		}
		tc.change(b)
		img := blank(t, 0)
		patch(t, img, func([]byte) []byte { return b })
		table, err := gpt.ReadMBR(open(t, img))
		if err != nil {
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
			}
			continue
		}
		var slots []string
		for _, p := range table.Partitions {
			slots = append(slots, fmt.Sprint(p.Slot))
		}
		if got := strings.Join(slots, " "); got != tc.want {
			t.Errorf("%s: slots %s, want %s", tc.name, got, tc.want)
		}
	}
}
