package disk_test

import (
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/disk"
)

func TestResolve(t *testing.T) {
	gpt := &disk.Layout{Volumes: []disk.Volume{
		{Slot: 1, UUID: "1A2B-3C4D", Label: "ESP", PartUUID: "2e408f63-7d1b-4c9f-a032-1b6d94e8f702", PartLabel: "EFI System"},
		{Slot: 2, UUID: rootUUID, Label: "my root", PartUUID: "3f519074-8e2c-4da0-b143-2c7ea5f90803", PartLabel: "root"},
		{Slot: 12, UUID: bootUUID},
	}}
	for spec, want := range map[string]int{
		"UUID=" + rootUUID:                  2,
		"UUID=" + strings.ToUpper(rootUUID): 2,
		"UUID=1a2b-3c4d":                    1,
		`UUID="1A2B-3C4D"`:                  1,
		`"UUID=1A2B-3C4D"`:                  1,
		"LABEL=ESP":                         1,
		"LABEL=esp":                         0,
		"LABEL=my root":                     2,
		`LABEL="my root"`:                   2,
		`LABEL=my\040root`:                  0, // escapes are of fstab, not of a name
		"PARTUUID=3F519074-8E2C-4DA0-B143-2C7EA5F90803": 2,
		"PARTLABEL=root":              2,
		`PARTLABEL="EFI System"`:      1,
		"/dev/disk/by-uuid/1A2B-3C4D": 1,
		"/dev/disk/by-label/ESP":      1,
		"/dev/disk/by-partuuid/2e408f63-7d1b-4c9f-a032-1b6d94e8f702": 1,
		"/dev/disk/by-partlabel/root":                                2,
		"/dev/disk/by-id/root":                                       0,
		"/dev/vda2":                                                  2,
		"/dev/sda12":                                                 12,
		"/dev/xvda1":                                                 1,
		"/dev/hda1":                                                  1,
		"/dev/nvme0n1p2":                                             2,
		"/dev/mmcblk0p12":                                            12,
		"/dev/sda3":                                                  0,
		"/dev/sda":                                                   0,
		"/dev/sda0":                                                  0,
		"/dev/nvme0n12":                                              0,
		"/dev/mapper/vg-root":                                        0,
		"/dev/vda99999999999999999999":                               0,
		"UUID=":                                                      0,
		`UUID=""`:                                                    0,
		"uuid=" + rootUUID:                                           0,
		"tmpfs":                                                      0,
		"":                                                           0,
	} {
		v, ok := gpt.Resolve(spec)
		if got := slot(v); got != want || ok != (want != 0) {
			t.Errorf("Resolve(%s) = slot %d, %t; want %d", spec, got, ok, want)
		}
	}
	bare := &disk.Layout{Table: disk.Bare, Volumes: []disk.Volume{{}}}
	for _, spec := range []string{"LABEL=", "/dev/sda0", "PARTUUID="} {
		if _, ok := bare.Resolve(spec); ok {
			t.Errorf("Resolve(%s) finds a bare volume without a name", spec)
		}
	}
}

func slot(v *disk.Volume) int {
	if v == nil {
		return 0
	}
	return v.Slot
}

// TestResolvePartitionAfter: the kernel counts on from a partition that is named.
func TestResolvePartitionAfter(t *testing.T) {
	const uuid = "2e408f63-7d1b-4c9f-a032-1b6d94e8f702"
	l := &disk.Layout{Volumes: []disk.Volume{{Slot: 1, PartUUID: uuid, PartLabel: "a"}, {Slot: 2}, {Slot: 4}}}
	for spec, want := range map[string]int{
		"PARTUUID=" + uuid + "/PARTNROFF=0": 1,
		"PARTUUID=" + uuid + "/PARTNROFF=1": 2,
		"PARTUUID=" + uuid + "/PARTNROFF=2": 0,
		"PARTUUID=" + uuid + "/PARTNROFF=3": 4,
		"PARTUUID=" + uuid + "/PARTNROFF=":  0,
		"PARTUUID=" + uuid + "/PARTNROFF=x": 0,
		"PARTUUID=x/PARTNROFF=1":            0,
		"PARTLABEL=a/PARTNROFF=1":           0,
	} {
		if v, ok := l.Resolve(spec); slot(v) != want || ok != (want != 0) {
			t.Errorf("Resolve(%s) = slot %d, %t; want %d", spec, slot(v), ok, want)
		}
	}
}
