// Package fork is what is done to a fork from outside. To that of a base, before a guest
// sees it, it is growth: a larger disk, and a partition with its filesystem that has the
// room. To that of the last layer, to make an image of it, it is the identity, which is
// its GUIDs, the UUIDs and labels of its filesystems if a recipe asks for others, and all
// that refers to them, and the partition types by which systemd finds what is in it.
package fork

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/gpt"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/refs"
	"github.com/imgmut/imgmut/mutate/tool"
)

// identityVersion is part of every derived GUID.
const identityVersion = 1

// identitySpace is the namespace of all GUIDs that imgmut derives (RFC 9562,
// UUIDv5).
var identitySpace = uuid.MustParse("6f6d7a5e-3c1b-5d0a-9d0e-1a2b3c4d5e6f")

// Derive gives the image of that name made by that chain its identity. Equal
// builds are equal; two images differ in their name, their chain, or both, and
// never share a GUID.
func (w Wanted) Derive(l *disk.Layout, k record.Key, name string) record.Identity {
	made := func(what string) uuid.UUID {
		return uuid.NewSHA1(identitySpace, fmt.Appendf(nil, "%d\n%s\n%s\n%s", identityVersion, k, name, what))
	}
	id := record.Identity{Disk: made("disk").String(), Partitions: map[string]string{}, KeepTypes: w.KeepTypes}
	if l.Table == disk.MBR {
		id.Disk = id.Disk[:8] // a signature of 32 bits is all an MBR has
	}
	for _, v := range l.Volumes {
		switch l.Table {
		case disk.GPT:
			id.Partitions[strings.ToLower(v.PartUUID)] = made(fmt.Sprintf("partition %d", v.Slot)).String()
		case disk.MBR:
			id.Partitions[strings.ToLower(v.PartUUID)] = fmt.Sprintf("%s-%02x", id.Disk, v.Slot)
		}
		if w.Filesystems && v.UUID != "" {
			if id.Filesystems == nil {
				id.Filesystems = map[string]string{}
			}
			id.Filesystems[strings.ToLower(v.UUID)] = filesystemUUID(v, made(fmt.Sprintf("filesystem %d", v.Slot)))
		}
		if w.Labels != "" && v.Label != "" {
			if id.Labels == nil {
				id.Labels = map[string]string{}
			}
			id.Labels[v.Label] = w.label(v, name)
		}
	}
	return id
}

// filesystemUUID is a UUID as UUID= names a volume by it: of FAT it is a serial of 32 bits.
func filesystemUUID(v disk.Volume, id uuid.UUID) string {
	if v.FS == "vfat" {
		return fmt.Sprintf("%X-%X", id[:2], id[2:4])
	}
	return id.String()
}

// Base is what is known of the base of an image.
type Base struct {
	File  *os.File // its bytes
	Clean []byte   // which of its files name no partition, as it was found at its import
	// Naming are files that do, by the key of their tree.
	Naming map[string][]string
}

// Changes are what an identity changes in the files of an image.
type Changes struct {
	patches [][]refs.Patch     // of each of its trees
	own     map[uuid.UUID]bool // types by which the system's own repart.d goes
}

// ErrTooMuch is what an error of [Find] is if the image has more than is looked into.
var ErrTooMuch = refs.ErrTooMuch

// Find looks for what an identity changes in the files of an image, which may be any that
// holds the same: what refers to the GUIDs, filesystem UUIDs and labels of its base. To look
// everywhere takes a while. Without that it looks where such names are known to be, which
// can be told by the closure of the image (package verify) to be too little.
func Find(ctx context.Context, i *disk.Image, base Base, id record.Identity, everywhere bool) (*Changes, error) {
	if i.Layout.Table == disk.Bare && len(id.Filesystems)+len(id.Labels) == 0 {
		return &Changes{}, nil
	}
	trees, unreadable, err := i.Trees()
	if err = errors.Join(append(unreadable, err)...); err != nil {
		return nil, err
	}
	c := &Changes{own: repartTypes(trees[0])}
	clean := refs.KnownFrom(base.Clean)
	c.patches, err = tool.Each(trees, func(t disk.Placed) ([]refs.Patch, error) {
		named, err := i.NamedAtBoot(t)
		if err != nil {
			return nil, err
		}
		files := refs.Files{FS: t.Tree, FAT: t.Volume.FS == "vfat", Whole: t.ReadAtBoot(), Named: named, Tree: t.Key()}
		names := refs.Names{Partitions: id.Partitions, Filesystems: id.Filesystems, Labels: id.Labels, Here: i.Layout.UUIDs()}
		var stale []refs.Patch
		add := func(p refs.Patch) error {
			stale = append(stale, p)
			return nil
		}
		switch {
		case len(id.Filesystems)+len(id.Labels) > 0: // what is known of a base is of the UUIDs of its partitions alone
			err = files.Rename(ctx, names, add)
		case everywhere:
			files.Clean, files.Unmoved = clean, i.Unmoved(ctx, base.File, t)
			err = files.Rename(ctx, names, add)
		default:
			err = files.RenameIn(ctx, names, base.Naming[t.Key()], add)
		}
		return stale, err
	})
	return c, err
}

// Identify turns a fork of the last layer into an image with an identity of its own:
// first what refers to its GUIDs, filesystem UUIDs and labels in its files, as [Find]
// found it, then these themselves. note is told of types that stay as they are.
func Identify(ctx context.Context, i *disk.Image, c *Changes, base Base, id record.Identity, note func(string)) error {
	if err := c.write(i, id); err != nil {
		return err
	}
	if err := renameFilesystems(ctx, i, id); err != nil {
		return err
	}
	switch i.Layout.Table {
	case disk.Bare:
		return nil
	case disk.MBR:
		return gpt.SetSignature(i.File, id.Disk)
	}
	t, err := gpt.Read(base.File)
	if err != nil {
		return err
	}
	disk := uuid.MustParse(id.Disk)
	e := gpt.Edit{NoSync: true, Disk: &disk, GUIDs: map[int]uuid.UUID{}}
	for _, p := range t.Partitions {
		if e.GUIDs[p.Slot], err = uuid.Parse(id.Partitions[p.GUID.String()]); err != nil {
			return fmt.Errorf("partition %d of the base is not the one that was imported: %w", p.Slot, err)
		}
	}
	if !id.KeepTypes {
		var keeps bool
		if e.Types, keeps, err = discoverable(i.Layout, t, c.own); err != nil {
			return fmt.Errorf("give partitions their types: %w", err)
		}
		if keeps {
			note("partition types stay as they are: the image's own repart.d goes by them")
		}
	}
	return gpt.Apply(i.File, e)
}

// write puts the new names of volumes where the image's files have the old ones, in all
// trees at once. They are opened for writing if one of their files is stale, and if
// filesystems get another UUID, for which no journal may be left to replay.
func (c *Changes) write(i *disk.Image, id record.Identity) error {
	stale := slices.ContainsFunc(c.patches, func(p []refs.Patch) bool { return len(p) > 0 })
	if !stale && len(id.Filesystems)+len(id.Labels) == 0 {
		return nil
	}
	err := i.Change(func(writable []disk.Placed) error {
		for n, t := range writable {
			for _, p := range c.patches[n] {
				if i.IsObject(t, p.File) {
					return fault.New(fault.Image, "make the container image, or commit, without it there",
						"%s names a volume, and cannot be changed: it is an object of the repository of ostree", path.Join(t.At, p.File))
				}
				if err := patch(t, p); err != nil {
					return err
				}
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fault.New(fault.Image, "the image's own filesystem is full: give it room with disk: {size: +1G}", "rewrite references: %v", err)
	case err != nil:
		return fmt.Errorf("rewrite references: %w", err)
	}
	return nil
}

func patch(t disk.Placed, p refs.Patch) error {
	if p.Whole {
		return t.Replace(p.File, p.Bytes)
	}
	return t.Overwrite(p.File, p.Bytes, p.Offset)
}
