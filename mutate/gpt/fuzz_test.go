package gpt_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/imgmut/imgmut/mutate/gpt"
)

// FuzzRead: Read either says what is wrong, or what it accepts can be edited,
// and the edit is exactly what was asked for.
//
// The input damages one of a few sound images, see mutate, because random bytes
// never get past the signature and the checksums.
func FuzzRead(f *testing.F) {
	seeds := fuzzImages()
	for i := range seeds {
		f.Add(uint8(i), int32(0), true, []byte{})
		f.Add(uint8(i), int32(5000), true, []byte{})
		f.Add(uint8(i), int32(-100), false, []byte{})
		f.Add(uint8(i), int32(0), true, record(3, 80, 1<<32-1))  // both headers: entry count
		f.Add(uint8(i), int32(0), true, record(2, 32, 1<<63))    // backup header: alternate
		f.Add(uint8(i), int32(0), true, record(7, 40, 1<<64-1))  // both arrays: end of partition 1
		f.Add(uint8(i), int32(0), false, record(5, 16, 1<<64-1)) // primary array, stale checksum
	}
	f.Add(uint8(255), int32(4096), false, []byte("EFI PART"))
	name := filepath.Join(f.TempDir(), "disk.img")
	f.Fuzz(func(t *testing.T, seed uint8, resize int32, seal bool, records []byte) {
		img := records // as they are
		if int(seed) < len(seeds) {
			img = mutate(bytes.Clone(seeds[seed]), records, seal)
		}
		img = append(bytes.Clone(img), make([]byte, 64<<10)...)[:min(max(0, len(img)+int(resize)), len(img)+(64<<10))]
		if err := os.WriteFile(name, img, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		table, err := gpt.Read(file)
		if err == nil {
			retype(t, file, table, img)
			grow(t, file, table)
			return
		}
		var damage *gpt.DamageError
		if !errors.Is(err, gpt.ErrNoTable) && !errors.As(err, &damage) {
			t.Errorf("Read() = %v, want ErrNoTable or a *DamageError", err)
		}
		if gpt.Apply(file, gpt.Edit{Disk: &uuid.UUID{1}}) == nil {
			t.Error("Apply accepts what Read refuses")
		}
		if !bytes.Equal(slurp(t, name), img) {
			t.Error("the file changed")
		}
	})
}

// fuzzImages are sound, each in its own way.
func fuzzImages() [][]byte {
	moved := small()
	moved.primaryArray, moved.firstUsable, moved.parts = 10, 12, [][2]int{{12, 15}, {17, 17}}
	big := small()
	big.sector, big.sectors, big.entries = 4096, 48, 40
	big.firstUsable = 4
	long := small()
	long.entrySize, long.entries, long.firstUsable, long.headerSize = 256, 8, 6, 200
	long.parts = [][2]int{{6, 7}, {9, 19}, {22, 22}, {20, 20}}
	var all [][]byte
	for _, l := range []layout{small(), moved, big, long} {
		all = append(all, craft(l))
	}
	return all
}

const recordSize = 11

// record says: in these copies (bit 0 the primary, bit 1 the backup), in the
// header or (bit 2) in the array, set the eight bytes at off. With bit 3, off
// counts from the start of the image instead.
func record(where byte, off uint16, value uint64) []byte {
	return le.AppendUint64(le.AppendUint16([]byte{where}, off), value)
}

// mutate carries out records and, if seal is set, makes the checksums true.
func mutate(img, records []byte, seal bool) []byte {
	sector := 512
	if string(img[512:520]) != "EFI PART" {
		sector = 4096
	}
	copies := both(img, sector) // before anything in the headers is wrong
	var headers, arrays [][]byte
	for _, r := range copies {
		headers, arrays = append(headers, r.header()), append(arrays, r.array())
	}
	for ; len(records) >= recordSize; records = records[recordSize:] {
		where, off, value := records[0], int(le.Uint16(records[1:])), records[3:recordSize]
		for i := range copies {
			target := headers[i]
			if where&4 != 0 {
				target = arrays[i]
			}
			if where&8 != 0 {
				target = img
			}
			if where&(1<<i) != 0 && off < len(target) {
				copy(target[off:], value)
			}
		}
	}
	if seal {
		sealAll(img)
	}
	return img
}

// retype changes the type of each partition and the disk GUID.
func retype(t *testing.T, f *os.File, table *gpt.Table, img []byte) {
	e := gpt.Edit{Disk: &uuid.UUID{1, 2, 3, 4, 5, 6, 7, 8}, Types: map[int]uuid.UUID{}}
	for i := range table.Partitions {
		e.Types[table.Partitions[i].Slot] = gpt.TypeRootX86_64
	}
	if err := gpt.Apply(f, e); err != nil {
		t.Fatalf("Apply() = %v to a table that Read accepts", err)
	}
	after := slurp(t, f.Name())
	if !bytes.Equal(after, expected(img, table.SectorSize, e)) {
		t.Error("Apply changed other bytes than asked for")
	}
	table.Disk = *e.Disk
	for i := range table.Partitions {
		table.Partitions[i].Type = gpt.TypeRootX86_64
	}
	if again := read(t, f); !reflect.DeepEqual(again, table) {
		t.Errorf("Read() = %+v after the edit, want %+v", again, table)
	}
}

// grow makes the disk larger, and its last partition: that is what was said before, or
// is refused and changes nothing.
func grow(t *testing.T, f *os.File, table *gpt.Table) {
	before := slurp(t, f.Name())
	g := gpt.Growth{Size: int64(len(before)) + 2*mib, NoSync: true}
	if len(table.Partitions) > 0 {
		g.Slot = lastPartition(table.Partitions).Slot
	}
	want, err := g.Table(f)
	if e := gpt.Grow(f, g); (e == nil) != (err == nil) {
		t.Fatalf("Grow() = %v, and Table() = %v", e, err)
	}
	if err != nil {
		if !bytes.Equal(slurp(t, f.Name()), before) {
			t.Error("a growth that was refused changed the file")
		}
		return
	}
	if got := read(t, f); !reflect.DeepEqual(got, want) || got.Grown {
		t.Errorf("Read() = %+v of the grown disk, want %+v", got, want)
	}
}

// sealAll makes true what checksums it can find, however wrong the rest is.
func sealAll(img []byte) {
	for _, sector := range []int{512, 4096} {
		for _, lba := range []int{1, len(img)/sector - 1} {
			if lba < 1 || (lba+1)*sector > len(img) {
				continue
			}
			r := raw{img, sector, uint64(lba)}
			h := r.header()
			if string(h[:8]) != "EFI PART" {
				continue
			}
			start, n := le.Uint64(h[72:]), uint64(le.Uint32(h[80:]))*uint64(le.Uint32(h[84:]))
			if size := uint64(len(img)); start < size && n <= size && start*uint64(sector) <= size-n {
				le.PutUint32(h[88:], crc32.ChecksumIEEE(img[start*uint64(sector):][:n]))
			}
			r.sealHeader()
		}
	}
}

// BenchmarkEdit retypes a partition of a sparse image of 20 GiB, to and fro.
// Most of it is the two barriers.
func BenchmarkEdit(b *testing.B) {
	img := blank(b, 20<<30)
	sfdisk(b, 512, img, "label: gpt\nsize=512MiB,type=U\nsize=18GiB\n")
	f := open(b, img)
	types := []uuid.UUID{gpt.TypeRootX86_64, gpt.TypeLinuxGeneric}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := gpt.Apply(f, gpt.Edit{Types: map[int]uuid.UUID{2: types[i%2]}}); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzReadMBR: what is read lies in the file and in no other partition, and a
// new signature changes four bytes of the first sector.
func FuzzReadMBR(f *testing.F) {
	table := func(t testing.TB, script string) []byte {
		img := blank(t, mib)
		sfdisk(t, 512, img, script)
		return slurp(t, img)
	}
	f.Add(withoutZeros(table(f, "label: dos\nlabel-id: 0x5ec0ffee\nsize=256,type=83,bootable\ntype=c\n")))
	f.Add(withoutZeros(table(f, "label: dos\nstart=64,size=256,type=83\nstart=512,type=5\nsize=64,type=82\ntype=83\n")))
	f.Fuzz(func(t *testing.T, sectors []byte) {
		b := withZeros(sectors)
		img := filepath.Join(t.TempDir(), "fuzz.img")
		if err := os.WriteFile(img, b, 0o644); err != nil {
			t.Fatal(err)
		}
		d := open(t, img)
		table, err := gpt.ReadMBR(d)
		if err != nil {
			return
		}
		protects := false
		for i, p := range table.Partitions {
			protects = protects || p.Type == 0xee
			if p.Start <= 0 || p.Size <= 0 || p.Start+p.Size > int64(len(b)) && p.Type != 0xee {
				t.Fatalf("%+v in a file of %d bytes", p, len(b))
			}
			for _, q := range table.Partitions[:i] {
				inside := q.Slot <= 4 && p.Slot > 4 && q.Start < p.Start && p.Start+p.Size <= q.Start+q.Size
				if p.Start < q.Start+q.Size && q.Start < p.Start+p.Size && !inside {
					t.Fatalf("%+v overlaps %+v", p, q)
				}
			}
		}
		if len(table.Partitions) > 0 {
			last := slices.MaxFunc(table.Partitions, func(a, b gpt.MBRPartition) int { return int(a.Start - b.Start) })
			g := gpt.Growth{Size: int64(len(b)) + 2*mib, Slot: last.Slot, NoSync: true}
			if _, err := g.MBR(d); err == nil {
				growDOS(t, d, g, img)
				if err := os.WriteFile(img, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := gpt.SetSignature(d, "01234567"); (err != nil) != protects {
			t.Fatal(err)
		}
		if now := slurp(t, img); !protects && (!bytes.Equal(now[:440], b[:440]) || !bytes.Equal(now[444:], b[444:])) {
			t.Fatal("SetSignature changed other bytes")
		}
	})
}

// growDOS makes the disk larger: what it was said to become it is.
func growDOS(t *testing.T, f *os.File, g gpt.Growth, img string) {
	want, err := g.MBR(f)
	if err == nil {
		err = gpt.GrowMBR(f, g)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := gpt.ReadMBR(open(t, img)); err != nil || !slices.Equal(got.Partitions, want.Partitions) {
		t.Fatalf("ReadMBR() = %+v, %v of the grown disk, want %+v", got, err, want)
	}
}

// withoutZeros packs a disk of a MiB, so that a fuzzer has little to change: of each sector that is not all zeros the
// number, in two bytes, and what it holds.
func withoutZeros(disk []byte) (sectors []byte) {
	for n := range len(disk) / 512 {
		if s := disk[n*512 : (n+1)*512]; !bytes.Equal(s, make([]byte, 512)) {
			sectors = append(binary.LittleEndian.AppendUint16(sectors, uint16(n)), s...)
		}
	}
	return sectors
}

// withZeros gives the disk that such sectors are of.
func withZeros(sectors []byte) []byte {
	disk := make([]byte, mib)
	for s := range slices.Chunk(sectors, 514) {
		if len(s) > 2 {
			copy(disk[int(binary.LittleEndian.Uint16(s))%(mib/512)*512:], s[2:])
		}
	}
	return disk
}
