package gpt_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/imgmut/imgmut/mutate/gpt"
)

// TestCrash stops Apply at every point: after any sectors of a batch, in any
// order, with all batches before it complete. One copy must be whole and be
// the old or the new table; and Read must not take a half-done edit for sound.
func TestCrash(t *testing.T) {
	for name, l := range map[string]layout{
		"512": small(),
		"4096, array in three sectors": {
			sector: 4096, sectors: 32, entrySize: 128, entries: 80, primaryArray: 2, firstUsable: 5,
			parts: [][2]int{{5, 9}, {12, 20}}, headerSize: 92,
		},
	} {
		t.Run(name, func(t *testing.T) {
			img := crafted(t, l)
			f := open(t, img)
			e := everything(read(t, f))
			batches, err := gpt.Batches(f, e)
			if err != nil {
				t.Fatal(err)
			}
			before := slurp(t, img)
			after := expected(before, l.sector, e)
			state := bytes.Clone(before)
			for _, batch := range batches {
				sectors := split(batch, l.sector)
				for subset := range 1 << len(sectors) {
					crashed := bytes.Clone(state)
					for i, w := range sectors {
						if subset&(1<<i) != 0 {
							copy(crashed[w.Off:], w.Data)
						}
					}
					survives(t, img, crashed, before, after, l.sector)
				}
				for _, w := range batch {
					copy(state[w.Off:], w.Data)
				}
			}
			if !bytes.Equal(state, after) {
				t.Error("the batches together are not the edit")
			}
		})
	}
}

// split cuts writes into sectors, the unit that storage writes whole.
func split(batch []gpt.Write, sector int) []gpt.Write {
	var all []gpt.Write
	for _, w := range batch {
		off := w.Off
		for part := range slices.Chunk(w.Data, sector) {
			all = append(all, gpt.Write{Off: off, Data: part})
			off += int64(len(part))
		}
	}
	return all
}

func survives(t *testing.T, img string, crashed, before, after []byte, sector int) {
	t.Helper()
	whole := func(side func([]byte, int) raw) bool {
		c := side(crashed, sector)
		same := func(img []byte) bool {
			s := side(img, sector)
			return bytes.Equal(c.header(), s.header()) && bytes.Equal(c.array(), s.array())
		}
		return same(before) || same(after)
	}
	if !whole(primary) && !whole(backup) {
		t.Error("neither copy survives")
	}
	if err := os.WriteFile(img, crashed, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = gpt.Read(f)
	var damage *gpt.DamageError
	complete := bytes.Equal(crashed, before) || bytes.Equal(crashed, after)
	if complete != (err == nil) || err != nil && !errors.As(err, &damage) {
		t.Errorf("Read() = %v of an edit that is complete or not begun: %v", err, complete)
	}
	if damage != nil && damage.Where == "both GPT copies" {
		t.Errorf("Read() = %v, want one copy to be sound", err)
	}
}
