package fork

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/google/uuid"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/gpt"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/refs"
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
// its own: GUIDs, the attribute bits and active flags of the base, and the
// references to partition UUIDs in the image's files.
func Identify(ctx context.Context, i *disk.Image, base *os.File, id record.Identity) error {
	f, l := i.File, i.Layout
	if l.Table == disk.Bare {
		return nil
	}
	if err := rewriteReferences(ctx, i, id); err != nil {
		return err
	}
	if l.Table == disk.MBR {
		return identifyMBR(f, base, id)
	}
	t, err := gpt.Read(base)
	if err != nil {
		return err
	}
	edit, err := editFor(l, t)
	if err != nil {
		return err
	}
	e, d := edit.finish, uuid.MustParse(id.Disk)
	e.Disk, e.GUIDs = &d, map[int]uuid.UUID{}
	for _, p := range t.Partitions {
		if e.GUIDs[p.Slot], err = uuid.Parse(id.Partitions[p.GUID.String()]); err != nil {
			return fmt.Errorf("partition %d of the base is not the one that was imported: %w", p.Slot, err)
		}
	}
	return gpt.Apply(f, e)
}

func identifyMBR(f, base *os.File, id record.Identity) error {
	m, err := gpt.ReadMBR(base)
	if err != nil {
		return err
	}
	var active []int
	for _, p := range m.Partitions {
		if p.Slot > 4 {
			break // of those nothing was changed
		}
		if p.Active {
			active = append(active, p.Slot)
		}
		if err := gpt.SetType(f, p.Slot, p.Type); err != nil {
			return err
		}
	}
	if err := gpt.SetActive(f, active...); err != nil {
		return err
	}
	return gpt.SetSignature(f, id.Disk)
}

// rewriteReferences puts the new partition UUIDs where the image's files name
// the old ones, in all volumes at once.
func rewriteReferences(ctx context.Context, i *disk.Image, id record.Identity) error {
	errs := make([]error, len(i.Layout.Volumes))
	var wg sync.WaitGroup
	for n, v := range i.Layout.Volumes {
		if v.HasReferences() {
			wg.Go(func() { errs[n] = rewriteVolume(ctx, i, v, id) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

// rewriteVolume opens a volume for writing only if one of its files is stale.
func rewriteVolume(ctx context.Context, i *disk.Image, v disk.Volume, id record.Identity) error {
	stale, err := stalePlaces(ctx, i, v, id)
	if err != nil || len(stale) == 0 {
		return err
	}
	err = overwrite(i, v, stale)
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fault.New(fault.Image, "the image's own filesystem is full: use a larger base",
			"rewrite references in %s: %v", v, err)
	case err != nil:
		return fmt.Errorf("rewrite references in %s: %w", v, err)
	}
	return nil
}

// stalePlaces gives the places in the files of a volume that name an old
// partition UUID, with the bytes they should have.
func stalePlaces(ctx context.Context, i *disk.Image, v disk.Volume, id record.Identity) ([]refs.Patch, error) {
	tree, err := i.Tree(v)
	if err != nil {
		return nil, err
	}
	var stale []refs.Patch
	err = refs.Files{FS: tree, FAT: v.FS == "vfat"}.Rename(ctx, id.Partitions, func(p refs.Patch) error {
		stale = append(stale, p)
		return nil
	})
	return stale, err
}

func overwrite(i *disk.Image, v disk.Volume, patches []refs.Patch) error {
	tree, err := i.Write(v)
	if err != nil {
		return err
	}
	for _, p := range patches {
		if err := tree.Overwrite(p.File, p.Bytes, p.Offset); err != nil {
			return errors.Join(err, tree.Close())
		}
	}
	return tree.Close()
}
