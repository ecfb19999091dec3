// Package disk reads what is in a raw disk image: its partitions, the
// filesystems in them, the role each plays for the operating system, and the
// references by which one names another.
//
// The role of a partition comes from what is in it, and from what the system will
// do with it: root is the filesystem, or the subvolume, with an os-release file; the
// rest is what is mounted where when root starts: by fstab, mount units, the kernel's
// command line, and by the types of partitions where systemd itself goes by them
// ([Layout.Mounts] says which). Of several roots the kernel's command line decides,
// and then a type. So an image whose partitions are all typed "Linux data" is clear,
// and one in which it cannot be known which volume is meant is refused.
//
// A guest gets the same mounts ([Image.MountGuest]), but for what is not of the image
// ([Layout.Covers]): what is written below that would not be seen.
//
// blkid(8) tells which filesystem a volume has; systemd uses the same library.
// Filesystems are read through detached mounts ([Volume.Open]), which have no
// mount point: only this process sees them and they end with it, so nothing is
// left over. FAT is read without the kernel, which may lack it.
package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/gpt"
	"github.com/imgmut/imgmut/mutate/ostree"
)

// TableKind is how an image is partitioned.
type TableKind string

// The kinds of partition tables. Bare is one filesystem from byte 0.
const (
	GPT  TableKind = "gpt"
	MBR  TableKind = "mbr"
	Bare TableKind = "bare"
)

// Role is what a volume is for.
type Role string

// The roles. A volume without one is left alone.
const (
	Root Role = "root"
	Usr  Role = "usr"
	Boot Role = "boot" // /boot; XBOOTLDR in the Discoverable Partitions Specification
	ESP  Role = "esp"
	Home Role = "home"
	Srv  Role = "srv"
	Var  Role = "var"
	Swap Role = "swap"
)

// Volume is one partition, or the whole of a bare image.
type Volume struct {
	Slot       int    `json:"slot,omitempty"` // in the partition table, 1-based; 0 for a bare image
	Offset     int64  `json:"offset"`
	Size       int64  `json:"size"` // bytes
	Role       Role   `json:"role,omitempty"`
	Mountpoint string `json:"mountpoint,omitempty"` // in the image, by fstab
	Type       string `json:"type,omitempty"`       // partition type: a GUID, or the MBR's byte as 0x83
	PartUUID   string `json:"partUUID,omitempty"`
	PartLabel  string `json:"partLabel,omitempty"`
	NoAuto     bool   `json:"noAuto,omitempty"` // systemd is to leave it alone
	FS         string `json:"fs,omitempty"`     // as blkid names it
	UUID       string `json:"uuid,omitempty"`
	Label      string `json:"label,omitempty"`
}

func (v Volume) String() string {
	if v.Slot == 0 {
		return "the filesystem"
	}
	return fmt.Sprintf("partition %d", v.Slot)
}

// Mounted is a place at which the system mounts something at its start: a volume
// of the image, or a part of one, unless Bind or Cover say otherwise.
type Mounted struct {
	Mountpoint string   `json:"mountpoint"`
	Slot       int      `json:"slot,omitempty"`     // of the volume, 0 also for that of a bare image
	Options    []string `json:"options,omitempty"`  // those that decide which files are there, or how they are stored
	Sub        string   `json:"sub,omitempty"`      // the directory of the volume that is shown there, if it is not all of it
	ReadOnly   bool     `json:"readOnly,omitempty"` // the system cannot write there
	Bind       string   `json:"bind,omitempty"`     // the directory of the system that is shown there as well
	Recursive  bool     `json:"rbind,omitempty"`    // of a bind: with what is mounted below that directory
	// Cover is what is mounted there that is not of this image, in words: what the
	// image has below will not be seen.
	Cover  string `json:"cover,omitempty"`
	ByHand bool   `json:"byHand,omitempty"` // not at the start: somebody has to ask for it
	From   string `json:"from,omitempty"`   // which file, or rule of systemd's, says so
}

// OfVolume says whether a volume of the image is mounted there.
func (m Mounted) OfVolume() bool { return m.Bind == "" && m.Cover == "" }

// Layout is what is in an image.
type Layout struct {
	Table      TableKind `json:"table"`
	SectorSize int       `json:"sectorSize,omitempty"` // bytes, if they are not 512
	Grown      bool      `json:"grown,omitempty"`      // the disk was enlarged behind its GPT, whose backup is not at the end
	Arch       string    `json:"arch"`                 // as systemd names it: x86-64, arm64
	OS         string    `json:"os"`                   // ID and VERSION_ID of os-release, as "debian 12"
	SELinux    bool      `json:"selinux,omitempty"`    // the system labels its files
	Disk       string    `json:"disk,omitempty"`       // the disk's name in the image's own files, if they use one: /dev/vda
	Mounts     []Mounted `json:"mounts,omitempty"`     // what the system mounts, / first, each after what it lies in
	Volumes    []Volume  `json:"volumes"`
	// Deployments are those of a system of ostree, the default first.
	Deployments []ostree.Deployment `json:"deployments,omitempty"`
}

// PartUUIDs lists by what PARTUUID= names the partitions, in small letters.
func (l *Layout) PartUUIDs() []string {
	var ids []string
	for _, v := range l.Volumes {
		if v.PartUUID != "" {
			ids = append(ids, strings.ToLower(v.PartUUID))
		}
	}
	return ids
}

// UUIDs lists by what UUID= names the filesystems, in small letters.
func (l *Layout) UUIDs() []string {
	var ids []string
	for _, v := range l.Volumes {
		if v.UUID != "" {
			ids = append(ids, strings.ToLower(v.UUID))
		}
	}
	return ids
}

// Find gives the volume with that role.
func (l *Layout) Find(r Role) (Volume, bool) {
	for _, v := range l.Volumes {
		if v.Role == r {
			return v, true
		}
	}
	return Volume{}, false
}

// List finds out what is in the image f without mounting anything: the volumes,
// and what filesystem is in each. The error is of class [fault.Image]
// if f is damaged. Roles are for [Image.FindRoles].
func List(ctx context.Context, f *os.File) (*Layout, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() == 0 {
		return nil, fault.New(fault.Image, "check how the file was made or downloaded", "the image is empty")
	}
	l, err := readTable(f)
	if err != nil {
		return nil, err
	}
	if n := len(l.Volumes); n > maxVolumes {
		return nil, fault.New(fault.Image, "use an image with fewer partitions",
			"the image has %d partitions, and imgmut looks into %d at most", n, maxVolumes)
	}
	if err := l.probe(ctx, f); err != nil {
		return nil, err
	}
	return l, nil
}

// maxVolumes is how many partitions an image may have: Linux knows no more on a
// disk, and a table can have thousands, of which each would be probed.
const maxVolumes = 255

func readTable(f *os.File) (*Layout, error) {
	t, err := gpt.Read(f)
	var damage *gpt.DamageError
	switch {
	case err == nil:
		l := &Layout{Table: GPT, Grown: t.Grown}
		if t.SectorSize != 512 {
			l.SectorSize = t.SectorSize
		}
		for _, p := range t.Partitions {
			l.Volumes = append(l.Volumes, Volume{Slot: p.Slot, Offset: p.Start, Size: p.Size,
				Type: p.Type.String(), PartUUID: p.GUID.String(), PartLabel: p.Name, NoAuto: p.Attributes&gpt.AttrNoAuto != 0})
		}
		return l, nil
	case errors.As(err, &damage):
		return nil, fault.New(fault.Image, damage.Mend, "%w", damage)
	case !errors.Is(err, gpt.ErrNoTable):
		return nil, err
	}
	m, err := gpt.ReadMBR(f)
	if err == nil {
		l := &Layout{Table: MBR}
		for _, p := range m.Partitions {
			l.Volumes = append(l.Volumes, Volume{Slot: p.Slot, Offset: p.Start, Size: p.Size,
				Type: fmt.Sprintf("0x%02x", p.Type), PartUUID: p.PartUUID(m.Signature)})
		}
		return l, nil
	}
	if errors.As(err, &damage) {
		return nil, fault.New(fault.Image, damage.Mend, "%w", damage)
	}
	if !errors.Is(err, gpt.ErrNoTable) {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &Layout{Table: Bare, Volumes: []Volume{{Size: fi.Size()}}}, nil
}

// Slot gives the volume in that slot of the partition table.
func (l *Layout) Slot(n int) (Volume, bool) {
	for _, v := range l.Volumes {
		if v.Slot == n {
			return v, true
		}
	}
	return Volume{}, false
}
