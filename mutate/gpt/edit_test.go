package gpt_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/uuid"

	"github.com/imgmut/imgmut/mutate/gpt"
)

const mib = 1 << 20

// scenario is a sound table, usual or not.
type scenario struct {
	name    string
	sector  int // bytes; 512 if 0
	build   func(t testing.TB, img string)
	odd     string // why sfdisk cannot read it
	grown   bool
	slots   int
	used    []int
	inspect func(t *testing.T, table *gpt.Table)
}

// usual is two partitions, made by sfdisk with the header lines given.
func usual(header string) func(testing.TB, string) {
	return func(t testing.TB, img string) {
		sfdisk(t, 512, img, "label: gpt\n"+header+"\nstart=4096,size=2048,type=U,name=esp\nstart=8192,size=8192,name=root\n")
	}
}

func usualThen(change func(b []byte) []byte) func(testing.TB, string) {
	return func(t testing.TB, img string) {
		usual("")(t, img)
		patch(t, img, change)
	}
}

var scenarios = []scenario{
	{name: "usual", build: usual(""), slots: 128, used: []int{1, 2}},
	{name: "gaps, order, attributes and names", slots: 128, used: []int{2, 5, 9, 128}, build: messy,
		inspect: func(t *testing.T, table *gpt.Table) {
			var names []string
			for _, p := range table.Partitions {
				names = append(names, p.Name)
			}
			if want := []string{messyNames[0], messyNames[1], "", "last"}; !slices.Equal(names, want) {
				t.Errorf("names are %q, want %q", names, want)
			}
			if got, want := table.Partitions[1].Attributes, uint64(1<<0|1<<1|1<<2|1<<47|1<<48|1<<59|1<<60|1<<63); got != want {
				t.Errorf("attributes are %#x, want %#x", got, want)
			}
		}},
	{name: "moved main table", slots: 128, used: []int{1, 2}, build: func(t testing.TB, img string) {
		usual("")(t, img)
		sgdisk(t, 512, img, "-j", "3000")
		patch(t, img, func(b []byte) []byte { copy(b[1024:], strings.Repeat("u-boot", 2000)); return b })
	}},
	{name: "56 entries", build: usual("table-length: 56"), slots: 56, used: []int{1, 2}},
	{name: "30 entries, not whole sectors", build: usual("table-length: 30"), slots: 30, used: []int{1, 2}},
	{name: "4 entries", build: usual("table-length: 4"), slots: 4, used: []int{1, 2}},
	{name: "1024 entries", slots: 1024, used: []int{1, 2}, build: func(t testing.TB, img string) {
		usual("")(t, img)
		sgdisk(t, 512, img, "-S", "1024")
	}},
	{name: "own usable range", build: usual("first-lba: 100\nlast-lba: 40000"), slots: 128, used: []int{1, 2}},
	{name: "sectors of 4096", sector: 4096, slots: 128, used: []int{1, 3}, build: func(t testing.TB, img string) {
		sgdisk(t, 4096, img, "-n", "3:512:1023", "-n", "1:2048:3000", "-t", "3:ef00", "-c", "1:root")
	}},
	{name: "sectors of 4096, 56 entries", sector: 4096, slots: 56, used: []int{1, 2},
		build: func(t testing.TB, img string) {
			sfdisk(t, 4096, img, "label: gpt\ntable-length: 56\nstart=512,size=512,type=U\nstart=1024,size=1024\n")
		}},
	{name: "hybrid MBR", slots: 128, used: []int{1, 2}, build: func(t testing.TB, img string) {
		usual("")(t, img)
		sgdisk(t, 512, img, "-h", "1:2")
	}},
	{name: "boot code and active protective entry", slots: 128, used: []int{1, 2}, build: usualThen(func(b []byte) []byte {
		for i := range 446 {
			b[i] = byte(i * 7)
		}
		b[446] = 0x80
		return b
	})},
	{name: "grown", grown: true, slots: 128, used: []int{1, 2},
		build: usualThen(func(b []byte) []byte { return append(b, make([]byte, 8*mib)...) })},
	{name: "grown by less than a sector", slots: 128, used: []int{1, 2},
		build: usualThen(func(b []byte) []byte { return append(b, make([]byte, 100)...) })},
	{name: "backup array away from its header", slots: 128, used: []int{1, 2}, build: func(t testing.TB, img string) {
		usual("last-lba: 40000")(t, img)
		patch(t, img, func(b []byte) []byte {
			r := backup(b, 512)
			array := bytes.Clone(r.array())
			clear(r.array())
			le.PutUint64(r.header()[72:], 45000)
			copy(r.array(), array)
			r.seal()
			return b
		})
	}},
	{name: "reserved header bytes", slots: 128, used: []int{1, 2}, build: usualThen(func(b []byte) []byte {
		for _, r := range both(b, 512) {
			copy(r.header()[100:], "vendor")
		}
		return b
	})},
	{name: "header of 512 bytes", odd: "libfdisk knows no other header size than 92", slots: 128, used: []int{1, 2},
		build: usualThen(func(b []byte) []byte {
			for _, r := range both(b, 512) {
				copy(r.header()[100:], "vendor")
				le.PutUint32(r.header()[12:], 512)
				r.seal()
			}
			return b
		})},
	{name: "entries of 256 bytes", odd: "libfdisk knows no other entry size than 128", slots: 8, used: []int{1, 2},
		build: func(t testing.TB, img string) {
			l := small()
			l.entrySize, l.entries, l.firstUsable, l.parts = 256, 8, 6, [][2]int{{30, 40}, {6, 20}}
			patch(t, img, func([]byte) []byte { return craft(l) })
		}},
	{name: "unused slot with remains", odd: "libfdisk takes it for a partition", slots: 128, used: []int{1, 2},
		build: usualThen(func(b []byte) []byte {
			for _, r := range both(b, 512) {
				copy(r.entry(7)[16:], "remains of a partition, with a type of zero")
				r.seal()
			}
			return b
		})},
	{name: "name with lone surrogate and bytes after NUL", slots: 128, used: []int{1, 2}, odd: "its JSON is not UTF-8",
		build: usualThen(func(b []byte) []byte {
			for _, r := range both(b, 512) {
				copy(r.entry(2)[56:], "a\x00\x00\xd8b\x00\x00\x00hidden")
				r.seal()
			}
			return b
		}), inspect: func(t *testing.T, table *gpt.Table) {
			if got, want := table.Partitions[1].Name, "a\ufffdb"; got != want {
				t.Errorf("name is %q, want %q", got, want)
			}
		}},
	{name: "no partitions", build: func(t testing.TB, img string) { sgdisk(t, 512, img, "-o") }, slots: 128},
}

// messyNames are 36 UTF-16 units each, some of them pairs.
var messyNames = []string{strings.Repeat("💾", 18), strings.Repeat("é", 36)}

func messy(t testing.TB, img string) {
	args := []string{"-a", "1", "-n", "5:2048:4095", "-n", "128:40:50", "-n", "2:20480:30719", "-n", "9:8193:8193",
		"-c", "128:last", "-t", "128:ef02"}
	for _, bit := range []int{0, 1, 2, 47, 48, 59, 60, 63} {
		args = append(args, "-A", fmt.Sprintf("5:set:%d", bit))
	}
	sgdisk(t, 512, img, args...)
	patch(t, img, func(b []byte) []byte {
		for _, r := range both(b, 512) {
			for i, slot := range []int{2, 5} {
				for k, unit := range utf16.Encode([]rune(messyNames[i])) {
					le.PutUint16(r.entry(slot)[56+2*k:], unit)
				}
			}
			r.seal()
		}
		return b
	})
}

// everything is an edit of every field of every partition.
func everything(table *gpt.Table) gpt.Edit {
	made := func(what string, n int) uuid.UUID {
		return uuid.NewSHA1(table.Disk, fmt.Appendf(nil, "%s %d", what, n))
	}
	disk := made("disk", 0)
	e := gpt.Edit{Disk: &disk, Types: map[int]uuid.UUID{}, GUIDs: map[int]uuid.UUID{}, Set: map[int]uint64{},
		Clear: map[int]uint64{}}
	for _, p := range table.Partitions {
		e.Types[p.Slot] = gpt.TypeRootARM64
		e.GUIDs[p.Slot] = made("partition", p.Slot)
		e.Set[p.Slot] = gpt.AttrNoAuto | gpt.AttrNoBlockIO
		e.Clear[p.Slot] = gpt.AttrReadOnly
	}
	return e
}

// reverse is the edit that puts a table back.
func reverse(table *gpt.Table) gpt.Edit {
	e := gpt.Edit{Disk: &table.Disk, Types: map[int]uuid.UUID{}, GUIDs: map[int]uuid.UUID{}, Set: map[int]uint64{},
		Clear: map[int]uint64{}}
	for _, p := range table.Partitions {
		e.Types[p.Slot], e.GUIDs[p.Slot] = p.Type, p.GUID
		e.Set[p.Slot], e.Clear[p.Slot] = p.Attributes, ^p.Attributes
	}
	return e
}

func TestApply(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel() // sgdisk waits a second for a kernel that is not there
			if sc.sector == 0 {
				sc.sector = 512
			}
			img := blank(t, 24*mib)
			sc.build(t, img)
			before, verdict := slurp(t, img), sgdisk(t, sc.sector, img, "-v")
			f := open(t, img)
			table := read(t, f)
			sc.check(t, img, table)

			e := everything(table)
			if err := gpt.Apply(f, e); err != nil {
				t.Fatal(err)
			}
			after := slurp(t, img)
			if !bytes.Equal(after, expected(before, sc.sector, e)) {
				t.Error("bytes other than the asked-for fields and the four checksums changed, or not these")
			}
			if got := sgdisk(t, sc.sector, img, "-v"); got != verdict {
				t.Errorf("sgdisk -v now says:\n%sbefore:\n%s", got, verdict)
			}
			edited := read(t, f)
			sc.compare(t, img, edited)
			if len(sc.used) > 0 && edited.Partitions[0].Type != gpt.TypeRootARM64 {
				t.Errorf("type is %s after the edit", edited.Partitions[0].Type)
			}

			if err := gpt.Apply(f, reverse(table)); err != nil {
				t.Fatal(err)
			}
			if sha256.Sum256(slurp(t, img)) != sha256.Sum256(before) {
				t.Error("undoing the edit does not give the original image")
			}
		})
	}
}

// check compares what Read found with what the scenario says, and with sfdisk.
func (sc scenario) check(t *testing.T, img string, table *gpt.Table) {
	t.Helper()
	var used []int
	for _, p := range table.Partitions {
		used = append(used, p.Slot)
	}
	if !slices.Equal(used, sc.used) || table.Slots != sc.slots || table.Grown != sc.grown ||
		table.SectorSize != sc.sector {
		t.Errorf("slots %v of %d, grown %v, sectors of %d; want %v of %d, %v, %d",
			used, table.Slots, table.Grown, table.SectorSize, sc.used, sc.slots, sc.grown, sc.sector)
	}
	if sc.inspect != nil {
		sc.inspect(t, table)
	}
	sc.compare(t, img, table)
}

// compare asks sfdisk for a second opinion.
func (sc scenario) compare(t *testing.T, img string, table *gpt.Table) {
	t.Helper()
	if sc.odd != "" {
		return
	}
	var dump struct {
		PartitionTable struct {
			ID                string
			FirstLBA, LastLBA uint64
			Partitions        []struct {
				Node, Type, UUID, Name, Attrs string
				Start, Size                   int64
			}
		}
	}
	out := sfdisk(t, sc.sector, img, "", "--json")
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &dump); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	d := dump.PartitionTable
	if uuid.MustParse(d.ID) != table.Disk || d.FirstLBA != table.FirstUsable || d.LastLBA != table.LastUsable ||
		len(d.Partitions) != len(table.Partitions) {
		t.Fatalf("sfdisk sees %+v, Read %+v", d, table)
	}
	byStart := slices.SortedFunc(slices.Values(table.Partitions),
		func(a, b gpt.Partition) int { return int(a.Start/512 - b.Start/512) })
	slices.SortFunc(d.Partitions, func(a, b struct {
		Node, Type, UUID, Name, Attrs string
		Start, Size                   int64
	}) int {
		return int(a.Start - b.Start)
	})
	for i, p := range byStart {
		q := d.Partitions[i]
		if uuid.MustParse(q.Type) != p.Type || uuid.MustParse(q.UUID) != p.GUID || q.Start*int64(sc.sector) != p.Start ||
			q.Size*int64(sc.sector) != p.Size || q.Name != p.Name || !strings.HasSuffix(q.Node, fmt.Sprint(p.Slot)) {
			t.Errorf("sfdisk sees %+v, Read %+v", q, p)
		}
	}
}

// TestApplyLikeSfdisk has sfdisk make the same edit: on a table that sfdisk
// made, the files are equal.
func TestApplyLikeSfdisk(t *testing.T) {
	img := blank(t, 24*mib)
	usual("")(t, img)
	other := img + ".sfdisk"
	if err := os.WriteFile(other, slurp(t, img), 0o644); err != nil {
		t.Fatal(err)
	}
	e := gpt.Edit{
		Disk:  new(uuid.MustParse("11111111-2222-4333-8444-555555555555")),
		Types: map[int]uuid.UUID{2: gpt.TypeRootX86_64},
		GUIDs: map[int]uuid.UUID{1: uuid.MustParse("01020304-0506-4708-890a-0b0c0d0e0f10")},
		Set:   map[int]uint64{2: gpt.AttrNoAuto | gpt.AttrGrowFS},
	}
	if err := gpt.Apply(open(t, img), e); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"--disk-id", other, e.Disk.String()},
		{"--part-type", other, "2", e.Types[2].String()},
		{"--part-uuid", other, "1", e.GUIDs[1].String()},
		{"--part-attrs", other, "2", "GUID:59,63"},
	} {
		run(t, "sfdisk", args...)
	}
	if !bytes.Equal(slurp(t, img), slurp(t, other)) {
		t.Error("sfdisk made something else of the same edit")
	}
}

// TestApplyNothing: an edit that changes nothing leaves even the time alone,
// and so works on a file that cannot be written.
func TestApplyNothing(t *testing.T) {
	img := crafted(t, small())
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table := read(t, f)
	for _, e := range []gpt.Edit{{}, reverse(table)} {
		if err := gpt.Apply(f, e); err != nil {
			t.Errorf("Apply(%v) = %v", e, err)
		}
	}
	before := slurp(t, img)
	if err := gpt.Apply(f, everything(table)); err == nil || !strings.Contains(err.Error(), "write backup GPT") {
		t.Errorf("Apply to a file open for reading = %v", err)
	}
	if !bytes.Equal(slurp(t, img), before) {
		t.Error("the file changed")
	}
}

// TestApplySwap: two partitions may exchange their GUIDs.
func TestApplySwap(t *testing.T) {
	f := open(t, crafted(t, small()))
	p := read(t, f).Partitions
	if err := gpt.Apply(f, gpt.Edit{GUIDs: map[int]uuid.UUID{1: p[1].GUID, 2: p[0].GUID}}); err != nil {
		t.Fatal(err)
	}
	want := slices.Clone(p)
	want[0].GUID, want[1].GUID = p[1].GUID, p[0].GUID
	if got := read(t, f).Partitions; !reflect.DeepEqual(got, want) {
		t.Errorf("partitions are %+v, want %+v", got, want)
	}
}

func TestApplyRefusesEdit(t *testing.T) {
	img := crafted(t, small())
	f := open(t, img)
	p := read(t, f).Partitions
	before := slurp(t, img)
	g := uuid.MustParse("01020304-0506-4708-890a-0b0c0d0e0f10")
	for _, tc := range []struct {
		want string
		edit gpt.Edit
	}{
		{"slot 3 is not in use", gpt.Edit{Types: map[int]uuid.UUID{3: g}}},
		{"slot 0 is not in use", gpt.Edit{GUIDs: map[int]uuid.UUID{0: g}}},
		{"slot -1 is not in use", gpt.Edit{Set: map[int]uint64{-1: 1, 5: 1}}},
		{"slot 5 is not in use", gpt.Edit{Clear: map[int]uint64{5: 0, 1: 1}}},
		{"partition 2: a type GUID of zero", gpt.Edit{Types: map[int]uuid.UUID{2: uuid.Nil, 1: g}}},
		{"partition 1: unique GUID is zero", gpt.Edit{GUIDs: map[int]uuid.UUID{1: uuid.Nil}}},
		{"disk GUID is zero", gpt.Edit{Disk: &uuid.UUID{}}},
		{"partition 1: attribute bits 0x2 are to be both", gpt.Edit{Set: map[int]uint64{1: 3}, Clear: map[int]uint64{1: 2}}},
		{"partitions 1 and 2 would both be", gpt.Edit{GUIDs: map[int]uuid.UUID{1: p[1].GUID}}},
		{"partitions 1 and 2 would both be", gpt.Edit{GUIDs: map[int]uuid.UUID{1: g, 2: g}}},
	} {
		if err := gpt.Apply(f, tc.edit); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Apply() = %v, want it to mention %q", err, tc.want)
		}
		if !bytes.Equal(slurp(t, img), before) {
			t.Fatalf("%s: the file changed", tc.want)
		}
	}
}
