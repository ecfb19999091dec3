package gpt_test

import (
	"bytes"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/gpt"
)

// lastPartition is the one behind which no other lies.
func lastPartition(parts []gpt.Partition) gpt.Partition {
	return slices.MaxFunc(parts, func(a, b gpt.Partition) int { return int(a.Start - b.Start) })
}

// TestGrow: the last partition of each scenario grows, on a disk that is no whole number
// of sectors. sgdisk, which took no part in it, finds all of it in order.
func TestGrow(t *testing.T) {
	for _, sc := range scenarios {
		if len(sc.used) == 0 {
			continue
		}
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel() // sgdisk waits a second for a kernel that is not there
			if sc.sector == 0 {
				sc.sector = 512
			}
			img := blank(t, 24*mib)
			sc.build(t, img)
			f, before := open(t, img), slurp(t, img)
			table := read(t, f)
			last := lastPartition(table.Partitions)
			g := gpt.Growth{Size: 64*mib + int64(sc.sector)%4096, Slot: last.Slot} // losetup warns of what is no whole sector
			want, err := g.Table(f)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(slurp(t, img), before) {
				t.Fatal("to ask what it would be changed the file")
			}
			if err := gpt.Grow(f, g); err != nil {
				t.Fatal(err)
			}
			got := read(t, f)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("the table is %+v, and was to be %+v", got, want)
			}
			sc.compare(t, img, got)
			for i, p := range table.Partitions {
				if p.Slot == last.Slot {
					p.Size = 63*mib - p.Start
				}
				if got.Partitions[i] != p {
					t.Errorf("partition %+v, want %+v", got.Partitions[i], p)
				}
			}
			if got.Grown || got.FirstUsable != table.FirstUsable || got.LastUsable <= table.LastUsable {
				t.Errorf("of %+v it made %+v", table, got)
			}
			if out := sgdisk(t, sc.sector, img, "-v"); sc.odd == "" && !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk -v says:\n%s", out)
			}
			sc.untouched(t, img, before, table)
		})
	}
}

// untouched wants what is no part of a table to be as it was, and no header where the
// old backup was.
func (sc scenario) untouched(t *testing.T, img string, before []byte, table *gpt.Table) {
	t.Helper()
	after := slurp(t, img)
	for _, p := range table.Partitions {
		if !bytes.Equal(after[p.Start:p.Start+p.Size], before[p.Start:p.Start+p.Size]) {
			t.Errorf("partition %d has other bytes", p.Slot)
		}
	}
	old := backup(before, sc.sector)
	if bytes.Contains(after[int(old.lba)*sc.sector:63*mib], []byte("EFI PART")) {
		t.Error("the old backup header is still there")
	}
	protects := after[446 : 446+64]
	if n := bytes.Count(before[446:446+64], make([]byte, 16)); n == 3 {
		if got, want := le.Uint32(protects[12:]), uint32(len(after)/sc.sector-1); got != want {
			t.Errorf("the protective entry covers %d sectors, want %d", got, want)
		}
	}
}

// TestGrowNoPartition: of a file that was made larger already, the table is put right.
func TestGrowNoPartition(t *testing.T) {
	for name, more := range map[string]int{"much": 8 * mib, "less than the backup takes": 10 * 512, "a sector": 512} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			img := blank(t, 24*mib)
			usual("")(t, img)
			patch(t, img, func(b []byte) []byte { return append(b, make([]byte, more)...) })
			f := open(t, img)
			table := read(t, f)
			if !table.Grown {
				t.Fatal("it is not grown to begin with")
			}
			if err := gpt.Grow(f, gpt.Growth{Size: int64(24*mib + more)}); err != nil {
				t.Fatal(err)
			}
			got := read(t, f)
			if got.Grown || !slices.Equal(got.Partitions, table.Partitions) {
				t.Errorf("the table is %+v, and was %+v", got, table)
			}
			if out := sgdisk(t, 512, img, "-v"); !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk -v says:\n%s", out)
			}
		})
	}
}

// TestGrowRefused: the file stays as it is.
func TestGrowRefused(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		growth     gpt.Growth
		build      func(testing.TB, string)
	}{
		{"smaller", "are less", gpt.Growth{Size: 24*mib - 1, Slot: 2}, usual("")},
		{"not the last", "partition 2 lies behind partition 1", gpt.Growth{Size: 64 * mib, Slot: 1}, usual("")},
		{"no such slot", "slot 3 is not in use", gpt.Growth{Size: 64 * mib, Slot: 3}, usual("")},
		{"damaged", "header checksum", gpt.Growth{Size: 64 * mib, Slot: 2},
			usualThen(func(b []byte) []byte { b[512+57]++; return b })},
		{"no room for the backup", "partition 2 from sector 20 to 62 is outside", gpt.Growth{Size: 64 * 512}, func(t testing.TB, img string) {
			// The backup array is beside the primary, and partition 2 goes on up to the header.
			l := small()
			l.firstUsable = 4
			b := craft(l)
			for _, r := range both(b, 512) {
				le.PutUint64(r.header()[48:], 62)
				le.PutUint64(r.entry(2)[40:], 62)
			}
			copy(b[3*512:4*512], b[62*512:63*512])
			le.PutUint64(backup(b, 512).header()[72:], 3)
			for _, r := range both(b, 512) {
				r.seal()
			}
			patch(t, img, func([]byte) []byte { return b })
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			img := blank(t, 24*mib)
			tc.build(t, img)
			f, before := open(t, img), slurp(t, img)
			_, err := tc.growth.Table(f)
			for call, err := range map[string]error{"Table": err, "Grow": gpt.Grow(f, tc.growth)} {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%s() = %v, want %q", call, err, tc.want)
				}
			}
			if !bytes.Equal(slurp(t, img), before) {
				t.Error("the file changed")
			}
		})
	}
}

// TestCrashGrow stops Grow at every point, as [TestCrash] does Apply: one copy is whole,
// and what Read accepts is the old table or the new one.
func TestCrashGrow(t *testing.T) {
	for name, more := range map[string]int{"by far": 4096, "by less than the backup": 1} {
		t.Run(name, func(t *testing.T) {
			l := small()
			img := crafted(t, l)
			f := open(t, img)
			g := gpt.Growth{Size: int64((l.sectors + more) * l.sector), Slot: 2}
			if more > 1 {
				g.Size = 3 * mib // room to the next MiB
			}
			old := read(t, f)
			grown, err := g.Table(f)
			if err != nil {
				t.Fatal(err)
			}
			batches, err := gpt.GrowBatches(f, g)
			if err != nil {
				t.Fatal(err)
			}
			before := append(slurp(t, img), make([]byte, int(g.Size)-l.sectors*l.sector)...)
			if err := gpt.Grow(f, g); err != nil {
				t.Fatal(err)
			}
			after, state := slurp(t, img), bytes.Clone(before)
			for _, batch := range batches {
				sectors := split(batch, l.sector)
				for subset := range 1 << len(sectors) {
					crashed := bytes.Clone(state)
					for i, w := range sectors {
						if subset&(1<<i) != 0 {
							copy(crashed[w.Off:], w.Data)
						}
					}
					halfGrown(t, img, crashed, before, after, old, grown)
				}
				for _, w := range batch {
					copy(state[w.Off:], w.Data)
				}
			}
			if !bytes.Equal(state, after) {
				t.Error("the batches together are not the growth")
			}
		})
	}
}

func halfGrown(t *testing.T, img string, crashed, before, after []byte, old, grown *gpt.Table) {
	t.Helper()
	const sector = 512
	same := func(r, want raw) bool {
		return r.lba == want.lba && bytes.Equal(r.header(), want.header()) &&
			bytes.Equal(crashed[int(le.Uint64(want.header()[72:]))*sector:][:512], want.array()[:512])
	}
	oldBackup, newBackup := backup(before, sector), backup(after, sector)
	if !same(primary(crashed, sector), primary(before, sector)) && !same(primary(crashed, sector), primary(after, sector)) &&
		!same(raw{crashed, sector, oldBackup.lba}, oldBackup) && !same(raw{crashed, sector, newBackup.lba}, newBackup) {
		t.Error("no copy survives")
	}
	if err := os.WriteFile(img, crashed, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := gpt.Read(f)
	if err != nil {
		if strings.Contains(err.Error(), "both GPT copies") {
			t.Errorf("Read() = %v, want one copy to be sound", err)
		}
		return
	}
	was := *old
	was.Grown = true
	if !reflect.DeepEqual(got, &was) && !reflect.DeepEqual(got, grown) {
		t.Errorf("Read() = %+v, which is neither the old table nor the new", got)
	}
}
