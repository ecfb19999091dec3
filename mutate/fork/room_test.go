package fork

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/disk"
)

// drawn is a layout by a line for each partition in the order of their places: slot,
// filesystem and where it is mounted.
func drawn(table disk.TableKind, volumes ...disk.Volume) *disk.Layout {
	l := &disk.Layout{Table: table, Volumes: volumes}
	for n := range l.Volumes {
		v := &l.Volumes[n]
		if v.Size == 0 {
			v.Size = 1 << 30
		}
		if v.Offset == 0 {
			v.Offset = int64(n+1) << 31
		}
		if v.Mountpoint == "/" {
			v.Role = disk.Root
		}
		if v.Mountpoint != "" {
			l.Mounts = append(l.Mounts, disk.Mounted{Mountpoint: v.Mountpoint, Slot: v.Slot})
		}
	}
	return l
}

// vol is a volume of one GiB.
func vol(slot int, fs, at string) disk.Volume { return disk.Volume{Slot: slot, FS: fs, Mountpoint: at} }

// TestChoose: which partition grows, and which cannot and why. The base has 8 GiB, if a
// case has no other.
func TestChoose(t *testing.T) {
	const gib = 1 << 30
	usual := drawn(disk.GPT, vol(1, "vfat", "/boot/efi"), vol(2, "ext4", "/"))
	swapped := drawn(disk.GPT, vol(1, "ext4", "/"), vol(2, "swap", ""))
	split := drawn(disk.GPT, vol(1, "xfs", "/"), vol(2, "ext4", "/var"))
	logical := drawn(disk.MBR, vol(1, "ext4", "/boot"), disk.Volume{Slot: 2, Type: "0x05", Size: 3 * gib},
		disk.Volume{Slot: 5, FS: "ext4", Mountpoint: "/", Offset: 2<<31 + 1<<20})
	twins := drawn(disk.GPT, vol(4, "btrfs", "/"))
	twins.Mounts = append(twins.Mounts, disk.Mounted{Mountpoint: "/home", Slot: 4, Options: []string{"subvol=home"}},
		disk.Mounted{Mountpoint: "/tmp", Cover: "a tmpfs"}, disk.Mounted{Mountpoint: "/srv", Bind: "/home"})
	for name, tc := range map[string]struct {
		layout    *disk.Layout
		grow      string
		more      int64 // GiB, 1 if 0
		want      int
		why, mend string
	}{
		"root":                              {layout: usual, want: 2},
		"by its number":                     {layout: usual, grow: "2", want: 2},
		"by its place":                      {layout: usual, grow: "/", want: 2},
		"last by place, not by number":      {layout: drawn(disk.GPT, vol(15, "vfat", "/boot/efi"), vol(1, "ext4", "/")), want: 1},
		"no table":                          {layout: drawn(disk.Bare, vol(0, "xfs", "/")), want: 0},
		"logical, in one that begins first": {layout: logical, want: 5},
		"a subvolume":                       {layout: twins, grow: "/home", want: 4},
		"the last, as root is not":          {layout: split, want: 2},
		"the last by its place":             {layout: split, grow: "/var", want: 2},

		"root on purpose, not the last": {layout: split, grow: "/",
			why:  "grow: partition 1 (/) cannot grow, because partition 2 (/var, 1 GiB) lies behind it",
			mend: "write grow: 2 for partition 2 (/var), which is the last, or use a base"},
		"swap behind root": {layout: swapped,
			why:  "size: partition 1 (/) cannot grow, because partition 2 (swap, 1 GiB) lies behind it",
			mend: "use a base in which it is the last one on the disk, with a file for swap"},
		"what nobody mounts behind root": {layout: drawn(disk.GPT, vol(1, "ext4", "/"), vol(2, "ext4", "")),
			why: "size: partition 1 (/) cannot grow, because partition 2 (ext4, 1 GiB) lies behind it", mend: "write grow: 2"},
		"the one around": {layout: logical, grow: "2",
			why: "grow: partition 2 has no filesystem", mend: "ext4"},
		"no such partition": {layout: usual, grow: "7",
			why: "grow: the base has no partition 7", mend: "imgmut doctor"},
		"no partition at all": {layout: drawn(disk.Bare, vol(0, "xfs", "/")), grow: "1",
			why: "grow: the base has no partition 1", mend: "imgmut doctor"},
		"no such place": {layout: usual, grow: "/var",
			why: "grow: the base mounts no partition of its own on /var", mend: "imgmut doctor"},
		"a tmpfs": {layout: twins, grow: "/tmp",
			why: "grow: the base mounts no partition of its own on /tmp", mend: "imgmut doctor"},
		"a bind": {layout: twins, grow: "/srv",
			why: "grow: the base mounts no partition of its own on /srv", mend: "imgmut doctor"},
		"f2fs": {layout: drawn(disk.GPT, vol(2, "f2fs", "/")),
			why: "size: partition 2 (/) has f2fs, which cannot be made larger", mend: "XFS"},
		"erofs": {layout: drawn(disk.GPT, vol(2, "erofs", "/")),
			why: "size: partition 2 (/) has erofs", mend: "XFS"},
		"the ESP": {layout: drawn(disk.GPT, vol(2, "ext4", "/"), vol(1, "vfat", "/efi")), grow: "1",
			why: "grow: partition 1 (/efi) has vfat", mend: "XFS"},
		"smaller": {layout: usual, more: -1,
			why: "size: the base has 8 GiB already, and a disk is never made smaller", mend: "+10G"},
		"DOS, 2 TiB": {layout: logical, more: 2040, want: 5},
		"DOS, beyond": {layout: logical, more: 2041,
			why: "size: the base has a DOS partition table, which reaches no further than 2 TiB", mend: "GPT"},
		"GPT, beyond": {layout: usual, more: 9000, want: 2},
	} {
		r := Room{Size: 1, Grow: tc.grow}
		v, err := r.choose(tc.layout)
		if err == nil {
			if tc.more == 0 {
				tc.more = 1
			}
			if no := r.refuse(tc.layout, v, 8*gib, tc.more*gib); no != nil {
				err = no
			}
		}
		if tc.why == "" {
			if err != nil || v.Slot != tc.want {
				t.Errorf("%s: partition %d, %v, want %d", name, v.Slot, err, tc.want)
			}
			continue
		}
		no, ok := err.(*Refusal)
		if !ok || !strings.HasPrefix(no.Error(), tc.why) || !strings.Contains(no.Mend, tc.mend) {
			t.Errorf("%s: partition %d, %#v, want %q, and %q", name, v.Slot, err, tc.why, tc.mend)
		}
	}
}

// TestPlan: what a size comes to on a disk of 64 MiB with an ext4 from its first to its
// 40th MiB, and on one that was enlarged from that to 72 MiB.
func TestPlan(t *testing.T) {
	const mib = 1 << 20
	for name, tc := range map[string]struct {
		grown bool // the disk, behind its table
		room  Room
		full  bool // the partition is as large as it can be
		swap  bool // something is behind the partition
		want  Growth
		size  int64 // of the partition then, MiB
		why   string
	}{
		"nothing":                         {size: 39},
		"nothing, of an enlarged one":     {grown: true, want: Growth{Size: 72 * mib}, size: 39},
		"more":                            {room: Room{Size: 64 * mib, More: true}, want: Growth{128 * mib, 1}, size: 126},
		"the same said otherwise":         {room: Room{Size: 128 * mib}, want: Growth{128 * mib, 1}, size: 126},
		"its size, and room in it":        {room: Room{Size: 64 * mib}, want: Growth{64 * mib, 1}, size: 62},
		"its size, and something behind":  {room: Room{Size: 64 * mib}, swap: true, size: 39},
		"larger, and something behind":    {room: Room{Size: 65 * mib}, swap: true, why: "size: partition 1 (/) cannot grow"},
		"enlarged, and something behind":  {grown: true, room: Room{Size: 72 * mib}, swap: true, want: Growth{Size: 72 * mib}, size: 39},
		"enlarged, filled":                {grown: true, room: Room{Size: 72 * mib}, want: Growth{72 * mib, 1}, size: 70},
		"smaller than the enlarged":       {grown: true, room: Room{Size: 64 * mib}, why: "size: the base has 72 MiB already"},
		"no such partition, and its size": {room: Room{Size: 64 * mib, Grow: "9"}, why: "grow: the base has no partition 9"},
		"its size, and it is full":        {room: Room{Size: 64 * mib}, full: true, size: 62},
		"too little more": {room: Room{Size: 4096, More: true}, full: true,
			why: "size: 4 KiB more are no room for partition 1 (/) to grow"},
	} {
		t.Run(name, func(t *testing.T) {
			img := filepath.Join(t.TempDir(), "disk.raw")
			writeFile(t, img, "")
			resize := func(size int64) {
				if err := os.Truncate(img, size); err != nil {
					t.Fatal(err)
				}
			}
			resize(64 * mib)
			script := "label: gpt\nstart=1MiB, size=39MiB\n"
			if tc.full {
				script = "label: gpt\nstart=1MiB\n"
			} else if tc.swap {
				script += "start=50MiB, size=4MiB\n"
			}
			program(t, script, "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", img)
			if tc.grown {
				resize(72 * mib)
			}
			l := layoutOf(t, img)
			v := &l.Volumes[0]
			v.FS, v.Role, l.Mounts = "ext4", disk.Root, []disk.Mounted{{Mountpoint: "/", Slot: 1}}
			if l.Grown != tc.grown {
				t.Fatalf("that the disk was enlarged is %v", l.Grown)
			}
			f, err := os.Open(img)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got, grown, err := tc.room.Plan(f, l)
			if tc.why != "" {
				if no, ok := err.(*Refusal); !ok || !strings.HasPrefix(no.Error(), tc.why) {
					t.Errorf("Plan() = %v, want %s", err, tc.why)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Fatalf("Plan() = %+v, %v, want %+v", got, err, tc.want)
			}
			if grown.Grown || grown.Volumes[0].Size != tc.size*mib {
				t.Errorf("it becomes %+v, want a partition of %d MiB", grown, tc.size)
			}
			if got == (Growth{}) && !reflect.DeepEqual(grown, l) {
				t.Error("no growth is another layout")
			}
		})
	}
}
