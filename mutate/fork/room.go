package fork

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/gpt"
	"github.com/imgmut/imgmut/mutate/printable"
	"github.com/imgmut/imgmut/mutate/tool"
)

// Room is what a recipe asks of the disk of an image.
type Room struct {
	Size int64  // bytes; 0 leaves it
	More bool   // than the base has
	Grow string // number of the partition that gets the room, or where it is mounted; empty for the usual one
}

// Growth is what makes the disk of an image another than that of its base. The zero
// Growth changes nothing.
type Growth struct {
	Size int64 `json:"size"` // of the disk, in bytes
	// Slot is the partition that grows. 0 is none, and the backup of the table goes to
	// the end; of a disk without a table it is the one filesystem.
	Slot int `json:"slot"`
}

// Plan finds out what a disk is to become, and what is in it then. base is the file, and
// l what is in it. The error is a [*Refusal] if it cannot be had; else it is about the
// machine, or of class [fault.Image].
func (r Room) Plan(base *os.File, l *disk.Layout) (Growth, *disk.Layout, error) {
	fi, err := base.Stat()
	if err != nil {
		return Growth{}, nil, err
	}
	has := fi.Size()
	if r.Size == 0 {
		return unchanged(base, l, has)
	}
	v, err := r.choose(l)
	if err != nil {
		return Growth{}, nil, err
	}
	more := r.Size
	if !r.More {
		more -= has
	}
	if no := r.refuse(l, v, has, more); no != nil && more != 0 {
		return Growth{}, nil, no
	} else if no != nil { // it need not grow
		return unchanged(base, l, has)
	}
	g := Growth{has + more, v.Slot}
	grown, err := g.layout(base, l)
	if err != nil {
		return Growth{}, nil, err
	}
	if now, _ := grown.Slot(v.Slot); now.Size == v.Size && more == 0 {
		return unchanged(base, l, has)
	} else if now.Size == v.Size {
		return Growth{}, nil, &Refusal{"size", fmt.Sprintf("%s more are no room for %s to grow", printable.Size(more), place(l, v)),
			"ask for some more: a partition that grows ends at a whole MiB, and a GPT has its backup behind it"}
	}
	if program := growers[v.FS]; program != "" {
		err = tool.Need(program, "grow "+v.String())
	}
	return g, grown, err
}

// unchanged is the growth of a disk whose size, and that of all in it, is right. What was
// enlarged behind its table gets a table that knows it.
func unchanged(base *os.File, l *disk.Layout, size int64) (Growth, *disk.Layout, error) {
	if !l.Grown {
		return Growth{}, l, nil
	}
	g := Growth{Size: size}
	grown, err := g.layout(base, l)
	return g, grown, err
}

// choose finds the partition that is meant. The usual one is root; if another lies
// behind it, the last, where that can grow.
func (r Room) choose(l *disk.Layout) (v disk.Volume, err error) {
	if n, err := strconv.Atoi(r.Grow); err == nil {
		v, ok := l.Slot(n)
		if !ok || l.Table == disk.Bare {
			return v, &Refusal{"grow", fmt.Sprintf("the base has no partition %d", n), "imgmut doctor shows those it has"}
		}
		return v, nil
	}
	if r.Grow != "" && r.Grow != "/" {
		n := slices.IndexFunc(l.Mounts, func(m disk.Mounted) bool { return m.Mountpoint == r.Grow && m.OfVolume() })
		if n < 0 {
			return v, &Refusal{"grow", fmt.Sprintf("the base mounts no partition of its own on %s", r.Grow),
				"imgmut doctor shows what it mounts"}
		}
		v, _ = l.Slot(l.Mounts[n].Slot)
		return v, nil
	}
	root, _ := l.Find(disk.Root)
	if last := lastOf(l); r.Grow == "" && behind(l, root) != nil && grows(last) && mountedOn(l, last) != "" {
		return last, nil
	}
	return root, nil
}

// refuse says why a partition cannot grow on a disk that has so many bytes and is to
// have more.
func (r Room) refuse(l *disk.Layout, v disk.Volume, has, more int64) *Refusal {
	next, field := behind(l, v), "grow"
	if r.Grow == "" {
		field = "size"
	}
	switch {
	case more < 0:
		return &Refusal{"size", fmt.Sprintf("the base has %s already, and a disk is never made smaller", printable.Size(has)),
			"ask for more, as +10G, or use a smaller base"}
	case l.Table == disk.MBR && more > gpt.MaxMBR-has:
		return &Refusal{"size", fmt.Sprintf("the base has a DOS partition table, which reaches no further than %s",
			printable.Size(gpt.MaxMBR)), "use a base with a GPT, or at most size: 2T"}
	case v.FS == "":
		return &Refusal{field, place(l, v) + " has no filesystem", mendKind}
	case !grows(v):
		return &Refusal{field, fmt.Sprintf("%s has %s, which cannot be made larger", place(l, v), v.FS), mendKind}
	case next != nil:
		mend := "use a base in which it is the last one on the disk"
		if next.FS == "swap" {
			mend += ", with a file for swap"
		}
		if last := lastOf(l); grows(last) {
			mend = fmt.Sprintf("write grow: %d for %s, which is the last, or %s", last.Slot, place(l, last), mend)
		}
		return &Refusal{field, fmt.Sprintf("%s cannot grow, because %s lies behind it", place(l, v), describe(l, *next)), mend}
	}
	return nil
}

// mendKind is what to know where a partition has another filesystem, or none.
const mendKind = "those that can be made larger are ext2, ext3, ext4, XFS and btrfs"

// grows says whether a volume has a filesystem that can be made larger.
func grows(v disk.Volume) bool {
	_, ok := growers[v.FS]
	return ok
}

// behind gives the next partition behind one, nil if it is the last. The extended
// partition around a logical one begins before it.
func behind(l *disk.Layout, v disk.Volume) (next *disk.Volume) {
	for _, o := range l.Volumes {
		if o.Offset > v.Offset && (next == nil || o.Offset < next.Offset) {
			next = &o
		}
	}
	return next
}

// lastOf gives the last partition on the disk.
func lastOf(l *disk.Layout) disk.Volume {
	return slices.MaxFunc(l.Volumes, func(a, b disk.Volume) int { return cmp.Compare(a.Offset, b.Offset) })
}

// mountedOn is the first place at which a volume is mounted, "" if none.
func mountedOn(l *disk.Layout, v disk.Volume) string {
	for _, m := range l.Mounts {
		if m.OfVolume() && m.Slot == v.Slot {
			return m.Mountpoint
		}
	}
	return ""
}

// place names a volume with where it is mounted.
func place(l *disk.Layout, v disk.Volume) string {
	if at := mountedOn(l, v); at != "" {
		return fmt.Sprintf("%s (%s)", v, at)
	}
	return v.String()
}

// describe names a volume with what is known of it.
func describe(l *disk.Layout, v disk.Volume) string {
	return fmt.Sprintf("%s (%s, %s)", v, cmp.Or(mountedOn(l, v), v.FS, v.TypeWords()), printable.Size(v.Size))
}

// layout is what is in a disk once it has grown.
func (g Growth) layout(base *os.File, l *disk.Layout) (*disk.Layout, error) {
	sizes, err := g.sizes(base, l.Table)
	if err != nil {
		return nil, fault.New(fault.Image, "", "%w", err)
	}
	grown := *l
	grown.Grown, grown.Volumes = false, slices.Clone(l.Volumes)
	for n, v := range grown.Volumes {
		grown.Volumes[n].Size = sizes[v.Slot]
	}
	return &grown, nil
}

// sizes are those of the partitions then, by slot; 0 is the disk.
func (g Growth) sizes(base *os.File, kind disk.TableKind) (map[int]int64, error) {
	sizes := map[int]int64{0: g.Size}
	switch kind {
	case disk.GPT:
		t, err := g.table().Table(base)
		if err != nil {
			return nil, err
		}
		for _, p := range t.Partitions {
			sizes[p.Slot] = p.Size
		}
	case disk.MBR:
		t, err := g.table().MBR(base)
		if err != nil {
			return nil, err
		}
		for _, p := range t.Partitions {
			sizes[p.Slot] = p.Size
		}
	}
	return sizes, nil
}

// table is what becomes of the partition table. A crash throws the fork away.
func (g Growth) table() gpt.Growth { return gpt.Growth{Size: g.Size, Slot: g.Slot, NoSync: true} }
