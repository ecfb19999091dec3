// Package fork is what is done to a fork of the last layer from outside, to make
// an image of it: the identity, which is its GUIDs and all that refers to them, and
// the partition types by which systemd finds what is in it.
package fork

import (
	"context"
	"errors"
	"fmt"
	"os"
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
func Derive(l *disk.Layout, k record.Key, name string) record.Identity {
	made := func(what string) uuid.UUID {
		return uuid.NewSHA1(identitySpace, fmt.Appendf(nil, "%d\n%s\n%s\n%s", identityVersion, k, name, what))
	}
	id := record.Identity{Disk: made("disk").String(), Partitions: map[string]string{}}
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
	}
	return id
}

// Identify turns a fork of the last layer into an image with an identity of
// its own: GUIDs, and the references to partition UUIDs in the image's files. note is
// told of types that stay as they are.
func Identify(ctx context.Context, i *disk.Image, base *os.File, id record.Identity, note func(string)) error {
	if i.Layout.Table == disk.Bare {
		return nil
	}
	trees, unreadable, err := i.Trees()
	if err = errors.Join(append(unreadable, err)...); err != nil {
		return err
	}
	if err := rewriteReferences(ctx, i, trees, id); err != nil {
		return err
	}
	if i.Layout.Table == disk.MBR {
		return gpt.SetSignature(i.File, id.Disk)
	}
	t, err := gpt.Read(base)
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
	var keeps bool
	if e.Types, keeps, err = discoverable(i.Layout, t, trees[0]); err != nil {
		return fmt.Errorf("give partitions their types: %w", err)
	}
	if keeps {
		note("partition types stay as they are: the image's own repart.d goes by them")
	}
	return gpt.Apply(i.File, e)
}

// rewriteReferences puts the new partition UUIDs where the image's files name
// the old ones, in all trees at once. They are opened for writing only if one of
// their files is stale.
func rewriteReferences(ctx context.Context, i *disk.Image, trees []disk.Placed, id record.Identity) error {
	stale, err := tool.Each(trees, func(t disk.Placed) ([]refs.Patch, error) { return stalePlaces(ctx, t, id) })
	if err != nil || !slices.ContainsFunc(stale, func(p []refs.Patch) bool { return len(p) > 0 }) {
		return err
	}
	err = i.Change(func(writable []disk.Placed) error {
		for n, t := range writable {
			for _, p := range stale[n] {
				if err := t.Overwrite(p.File, p.Bytes, p.Offset); err != nil {
					return err
				}
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fault.New(fault.Image, "the image's own filesystem is full: use a larger base", "rewrite references: %v", err)
	case err != nil:
		return fmt.Errorf("rewrite references: %w", err)
	}
	return nil
}

// stalePlaces gives the places in the files of a tree that name an old partition
// UUID, with the bytes they should have.
func stalePlaces(ctx context.Context, t disk.Placed, id record.Identity) ([]refs.Patch, error) {
	var stale []refs.Patch
	files := refs.Files{FS: t.Tree, FAT: t.Volume.FS == "vfat", Whole: t.ReadAtBoot()}
	err := files.Rename(ctx, refs.Names{Partitions: id.Partitions}, func(p refs.Patch) error {
		stale = append(stale, p)
		return nil
	})
	return stale, err
}
