package gpt_test

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
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

// TestReadLogical: the chain of logical partitions, as sfdisk makes it and says
// where they are.
func TestReadLogical(t *testing.T) {
	img := blank(t, 24*mib)
	sfdisk(t, 512, img, "label: dos\nlabel-id: 0x5ec0ffee\n"+
		"1: start=2048,size=4096,type=83,bootable\n2: start=8192,type=f\n"+
		"5: start=10240,size=2048,type=82\n6: start=14336,size=4096,type=83\n7: start=20480,size=2048,type=83\n")
	f := open(t, img)
	got, err := gpt.ReadMBR(f)
	if err != nil {
		t.Fatal(err)
	}
	want := []gpt.MBRPartition{
		{1, 0x83, true, 2048 * 512, 4096 * 512}, {2, 0x0f, false, 8192 * 512, (24*mib/512 - 8192) * 512},
		{5, 0x82, false, 10240 * 512, 2048 * 512}, {6, 0x83, false, 14336 * 512, 4096 * 512},
		{7, 0x83, false, 20480 * 512, 2048 * 512},
	}
	if !slices.Equal(got.Partitions, want) {
		t.Errorf("ReadMBR() = %+v, want %+v", got.Partitions, want)
	}
	whole := slurp(t, img)
	// An empty entry first: partx(8), like the kernel, does not number it.
	patch(t, img, func([]byte) []byte {
		b := bytes.Clone(whole)
		clear(b[8192*512+446 : 8192*512+446+16])
		return b
	})
	out, err := exec.Command("partx", "--raw", "--noheadings", "--output", "NR,START", "--nr", "5:", img).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, err = gpt.ReadMBR(f); err != nil {
		t.Fatal(err)
	}
	var lines string
	for _, p := range got.Partitions[2:] {
		lines += fmt.Sprintf("%d %d\n", p.Slot, p.Start/512)
	}
	if lines != string(out) || lines == "" {
		t.Errorf("ReadMBR() sees\n%spartx sees\n%s", lines, out)
	}
	second := int64(le.Uint32(slurp(t, img)[8192*512+446+16+8:])+8192) * 512
	for name, damage := range map[string]func(b []byte){
		"outside the extended": func(b []byte) { le.PutUint32(b[second+446+12:], 1<<30) },
		"does not lie behind":  func(b []byte) { le.PutUint32(b[second+446+16+8:], 0) },
	} {
		patch(t, img, func([]byte) []byte { b := bytes.Clone(whole); damage(b); return b })
		var broken *gpt.DamageError
		if _, err := gpt.ReadMBR(f); !errors.As(err, &broken) || !strings.Contains(err.Error(), name) {
			t.Errorf("ReadMBR() = %v, want damage: %s", err, name)
		}
	}
}

func TestReadMBRDamage(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		damage     func(b []byte) []byte
	}{
		{"truncated", "partition 4 ends at byte 25165824, but the file is 24117248 bytes",
			func(b []byte) []byte { return b[:23*mib] }},
		{"count overflows", "partition 2 ends at byte 2199024304128", func(b []byte) []byte {
			le.PutUint32(b[446+16+12:], 1<<32-1-2047)
			le.PutUint32(b[446+16+8:], 4096)
			return b
		}},
		{"overlap", "partition 2 and partition 1 overlap at sector 8192",
			func(b []byte) []byte { le.PutUint32(b[446+16+12:], 8192); return b }},
		{"starts in the MBR", "the MBR and partition 1 overlap",
			func(b []byte) []byte { le.PutUint32(b[446+8:], 0); return b }},
		{"flag of no table", "no partition table", func(b []byte) []byte { b[446+48] = 0x20; return b }},
		{"magic", "no partition table", func(b []byte) []byte { b[511] = 0; return b }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			img := dos(t)
			patch(t, img, tc.damage)
			f, before := open(t, img), slurp(t, img)
			_, err := gpt.ReadMBR(f)
			for call, err := range map[string]error{
				"ReadMBR": err, "SetSignature": gpt.SetSignature(f, "01234567"),
			} {
				var damage *gpt.DamageError
				if err == nil || !strings.Contains(err.Error(), tc.want) ||
					errors.As(err, &damage) == errors.Is(err, gpt.ErrNoTable) {
					t.Errorf("%s() = %v, want %q", call, err, tc.want)
				}
			}
			if !bytes.Equal(slurp(t, img), before) {
				t.Error("the file changed")
			}
		})
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
	if err := gpt.SetSignature(f, "01234567"); err == nil || !strings.Contains(err.Error(), "protects a GPT") {
		t.Errorf("edit = %v", err)
	}
	if !bytes.Equal(slurp(t, img), before) {
		t.Error("the file changed")
	}
}
