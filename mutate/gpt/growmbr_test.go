package gpt_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/gpt"
)

// dosLayouts are tables whose last partition grows, by sfdisk's script, in which LAST is
// its size in sectors and OUTER that of the extended partition it is in.
var dosLayouts = []struct {
	name, script string
	slot, outer  int
}{
	{"primary", "1: start=2048,size=4096,type=83,bootable\n2: start=8192,size=LAST,type=83\n", 2, 0},
	{"first by number", "2: start=2048,size=4096,type=c\n1: start=8192,size=LAST,type=83\n", 1, 0},
	{"first logical", "1: start=2048,size=4096,type=83\n2: start=8192,size=OUTER,type=5\n5: start=10240,size=LAST,type=83\n", 5, 2},
	{"third logical", "1: start=2048,size=4096,type=83\n3: start=8192,size=OUTER,type=f\n5: start=10240,size=2048,type=82\n" +
		"6: start=14336,size=2048,type=83\n7: start=20480,size=LAST,type=83\n", 7, 3},
}

// dosDisk makes a disk of that many bytes by a script of dosLayouts.
func dosDisk(t *testing.T, size int64, script string, last, outer int64) string {
	img := blank(t, size)
	sizes := strings.NewReplacer("LAST", fmt.Sprint(last/512), "OUTER", fmt.Sprint(outer/512))
	sfdisk(t, 512, img, "label: dos\nlabel-id: 0x5ec0ffee\n"+sizes.Replace(script))
	return img
}

// TestGrowMBR: sfdisk sees what was asked for, and finds nothing wrong with it.
func TestGrowMBR(t *testing.T) {
	for _, tc := range dosLayouts {
		t.Run(tc.name, func(t *testing.T) {
			img := dosDisk(t, 24*mib, tc.script, 2*mib, 16*mib)
			f, before := open(t, img), slurp(t, img)
			want, err := gpt.ReadMBR(f)
			if err != nil {
				t.Fatal(err)
			}
			var last, outer int64
			for i := range want.Partitions {
				p := &want.Partitions[i]
				switch p.Slot {
				case tc.slot:
					p.Size = 9<<30 - p.Start
					last = p.Size
				case tc.outer:
					p.Size = 9<<30 - p.Start
					outer = p.Size
				}
			}
			g := gpt.Growth{Size: 9<<30 + 5000, Slot: tc.slot}
			planned, err := g.MBR(f)
			if err != nil || !slices.Equal(planned.Partitions, want.Partitions) {
				t.Errorf("MBR() = %+v, %v, want %+v", planned, err, want)
			}
			if !bytes.Equal(slurp(t, img), before) {
				t.Fatal("to ask what it would be changed the file")
			}
			if err := gpt.GrowMBR(f, g); err != nil {
				t.Fatal(err)
			}
			if got, err := gpt.ReadMBR(f); err != nil || !slices.Equal(got.Partitions, want.Partitions) {
				t.Errorf("ReadMBR() = %+v, %v, want %+v", got, err, want)
			}
			if out := sfdisk(t, 512, img, "", "--verify"); !strings.Contains(out, "No errors detected") {
				t.Errorf("sfdisk --verify says:\n%s", out)
			}
			// As sfdisk itself writes it: all bytes of the entries, those by cylinder too.
			grown := dosDisk(t, 9<<30+5000, tc.script, last, outer)
			made, theirs := make([]byte, 24*mib), make([]byte, 24*mib)
			for name, b := range map[string][]byte{img: made, grown: theirs} {
				if _, err := open(t, name).ReadAt(b, 0); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(made, theirs) {
				t.Error("sfdisk writes other bytes")
			}
		})
	}
}

// TestGrowMBRRefused: the file stays as it is.
func TestGrowMBRRefused(t *testing.T) {
	logical := dosLayouts[3].script
	for _, tc := range []struct {
		name, script, want string
		growth             gpt.Growth
	}{
		{"beyond 2 TiB", dosLayouts[0].script, "reaches up to 2199023255552 bytes", gpt.Growth{Size: gpt.MaxMBR + 1, Slot: 2}},
		{"smaller", dosLayouts[0].script, "are less", gpt.Growth{Size: 23 * mib, Slot: 2}},
		{"not the last", dosLayouts[0].script, "partition 2 lies behind partition 1", gpt.Growth{Size: 64 * mib, Slot: 1}},
		{"not the last logical", logical, "partition 7 lies behind partition 6", gpt.Growth{Size: 64 * mib, Slot: 6}},
		{"one that holds others", logical, "partition 5 lies behind partition 3", gpt.Growth{Size: 64 * mib, Slot: 3}},
		{"no such slot", logical, "slot 9 is not in use", gpt.Growth{Size: 64 * mib, Slot: 9}},
		{"logical before a primary", "1: start=2048,size=8192,type=5\n2: start=20480,size=LAST,type=83\n5: start=4096,size=2048,type=83\n",
			"partition 2 lies behind partition 5", gpt.Growth{Size: 64 * mib, Slot: 5}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			img := dosDisk(t, 24*mib, tc.script, 2*mib, 16*mib)
			f, before := open(t, img), slurp(t, img)
			_, err := tc.growth.MBR(f)
			for call, err := range map[string]error{"MBR": err, "GrowMBR": gpt.GrowMBR(f, tc.growth)} {
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

// TestGrowMBRUpToTheEnd: a partition can end where the table's numbers do.
func TestGrowMBRUpToTheEnd(t *testing.T) {
	img := dosDisk(t, 24*mib, dosLayouts[0].script, 2*mib, 0)
	f := open(t, img)
	if err := gpt.GrowMBR(f, gpt.Growth{Size: gpt.MaxMBR, Slot: 2}); err != nil {
		t.Fatal(err)
	}
	if got, err := gpt.ReadMBR(f); err != nil || got.Partitions[1].Start+got.Partitions[1].Size != gpt.MaxMBR {
		t.Errorf("ReadMBR() = %+v, %v", got, err)
	}
}
