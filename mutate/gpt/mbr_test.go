package gpt_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/gpt"
)

func dos(t testing.TB) string {
	img := blank(t, 24*mib)
	sfdisk(t, 512, img, "label: dos\nlabel-id: 0x5ec0ffee\n2: start=2048,size=4096,type=83,bootable\n"+
		"1: start=8192,size=2048,type=c\n4: start=12288,type=5\n")
	return img
}

func TestReadMBR(t *testing.T) {
	img := dos(t)
	f := open(t, img)
	if _, err := gpt.Read(f); !errors.Is(err, gpt.ErrNoTable) {
		t.Errorf("Read() = %v, want ErrNoTable", err)
	}
	got, err := gpt.ReadMBR(f)
	if err != nil {
		t.Fatal(err)
	}
	want := []gpt.MBRPartition{
		{1, 0x0c, false, 8192 * 512, 2048 * 512},
		{2, 0x83, true, 2048 * 512, 4096 * 512},
		{4, 0x05, false, 12288 * 512, (24*mib/512 - 12288) * 512},
	}
	if got.Signature != 0x5ec0ffee || !slices.Equal(got.Partitions, want) {
		t.Errorf("ReadMBR() = %+v, want %+v", got, want)
	}
	if id := got.Partitions[1].PartUUID(got.Signature); id != "5ec0ffee-02" {
		t.Errorf("PARTUUID is %s", id)
	}
}

func TestReadMBRDamage(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		damage     func(b []byte) []byte
	}{
		{"truncated", "partition 4 ends at byte 25165824, but the file is 24117248 bytes", func(b []byte) []byte { return b[:23*mib] }},
		{"count overflows", "partition 2 ends at byte 2199024304128", func(b []byte) []byte {
			le.PutUint32(b[446+16+12:], 1<<32-1-2047)
			le.PutUint32(b[446+16+8:], 4096)
			return b
		}},
		{"overlap", "partition 2 and partition 1 overlap at sector 8192", func(b []byte) []byte { le.PutUint32(b[446+16+12:], 8192); return b }},
		{"starts in the MBR", "the MBR and partition 1 overlap", func(b []byte) []byte { le.PutUint32(b[446+8:], 0); return b }},
		{"flag of no table", "no partition table", func(b []byte) []byte { b[446+48] = 0x20; return b }},
		{"magic", "no partition table", func(b []byte) []byte { b[511] = 0; return b }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			img := dos(t)
			patch(t, img, tc.damage)
			f, before := open(t, img), slurp(t, img)
			_, err := gpt.ReadMBR(f)
			for call, err := range map[string]error{"ReadMBR": err, "SetActive": gpt.SetActive(f, 1), "SetSignature": gpt.SetSignature(f, "01234567")} {
				var damage *gpt.DamageError
				if err == nil || !strings.Contains(err.Error(), tc.want) || errors.As(err, &damage) == errors.Is(err, gpt.ErrNoTable) {
					t.Errorf("%s() = %v, want %q", call, err, tc.want)
				}
			}
			if !bytes.Equal(slurp(t, img), before) {
				t.Error("the file changed")
			}
		})
	}
}

func TestSetActive(t *testing.T) {
	img := dos(t)
	f, before := open(t, img), slurp(t, img)
	for slot, flags := range map[int][4]byte{1: {0x80}, 4: {3: 0x80}, 0: {}, 2: {1: 0x80}} {
		if err := gpt.SetActive(f, slot); err != nil {
			t.Fatal(err)
		}
		want := bytes.Clone(before)
		for i, flag := range flags {
			want[446+16*i] = flag
		}
		if !bytes.Equal(slurp(t, img), want) {
			t.Errorf("SetActive(%d) changed other bytes than the flags", slot)
		}
	}
	now := slurp(t, img)
	for _, slot := range []int{3, 5, -1} {
		if err := gpt.SetActive(f, slot); err == nil || !strings.Contains(err.Error(), "not in use") {
			t.Errorf("SetActive(%d) = %v", slot, err)
		}
	}
	if !bytes.Equal(slurp(t, img), now) {
		t.Error("a refused edit changed the file")
	}
}

func TestSetType(t *testing.T) {
	img := dos(t)
	f, before := open(t, img), slurp(t, img)
	if err := gpt.SetType(f, 2, gpt.TypeMBRBoot); err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(before)
	want[446+16+4] = 0xea
	if !bytes.Equal(slurp(t, img), want) {
		t.Error("SetType changed other bytes than the type")
	}
	for slot, kind := range map[int]byte{0: 0x83, 3: 0x83, 5: 0x83, 1: 0} {
		if err := gpt.SetType(f, slot, kind); err == nil {
			t.Errorf("SetType(%d, %#x) = nil", slot, kind)
		}
	}
	if !bytes.Equal(slurp(t, img), want) {
		t.Error("a refused edit changed the file")
	}
}

func TestSetSignature(t *testing.T) {
	img := dos(t)
	f, before := open(t, img), slurp(t, img)
	for _, bad := range []string{"", "0x123456", "00000000", "1234567", "123456789", "-1234567", "1234567g"} {
		if err := gpt.SetSignature(f, bad); err == nil || !strings.Contains(err.Error(), "eight hexadecimal digits") {
			t.Errorf("SetSignature(%q) = %v", bad, err)
		}
	}
	if !bytes.Equal(slurp(t, img), before) {
		t.Error("a refused edit changed the file")
	}
	if err := gpt.SetSignature(f, "deadBEEF"); err != nil {
		t.Fatal(err)
	}
	copy(before[440:], []byte{0xef, 0xbe, 0xad, 0xde})
	if !bytes.Equal(slurp(t, img), before) {
		t.Error("bytes other than the signature changed")
	}
	if out := sfdisk(t, 512, img, "", "--json"); !strings.Contains(out, `"id": "0xdeadbeef"`) {
		t.Errorf("sfdisk sees %s", out)
	}
}

// TestEditMBRProtective: sector 0 of a disk with a GPT is not a table to edit.
func TestEditMBRProtective(t *testing.T) {
	img := crafted(t, small())
	f, before := open(t, img), slurp(t, img)
	for _, err := range []error{gpt.SetActive(f, 1), gpt.SetSignature(f, "01234567")} {
		if err == nil || !strings.Contains(err.Error(), "protects a GPT") {
			t.Errorf("edit = %v", err)
		}
	}
	if !bytes.Equal(slurp(t, img), before) {
		t.Error("the file changed")
	}
}
