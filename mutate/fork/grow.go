package fork

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/gpt"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/tool"
)

// A disk grows in the fork, before a guest sees it: the file, the table, the partition,
// and then the filesystem. ext2 to ext4 grow by the program of their authors, in a file
// that shares the fork's blocks, as they get their UUIDs. That takes no longer than the
// kernel does, which wants a right that containers often lack (CAP_SYS_RESOURCE), and
// would begin to write out empty tables of inodes. XFS and btrfs grow only while they
// are mounted.

// growers are the programs by which filesystems grow; none for those of which the
// kernel does it. Others do not grow.
var growers = map[string]string{"ext2": "resize2fs", "ext3": "resize2fs", "ext4": "resize2fs", "xfs": "", "btrfs": ""}

// Grow makes the disk of a fork larger. l is what is in it afterwards, as [Room.Plan]
// gave it. An error of class [fault.Image] is about its filesystem. note is told if
// another imgmut has to be waited for.
func (g Growth) Grow(ctx context.Context, f *os.File, l *disk.Layout, note func(string)) error {
	var err error
	switch l.Table {
	case disk.GPT:
		err = gpt.Grow(f, g.table())
	case disk.MBR:
		err = gpt.GrowMBR(f, g.table())
	case disk.Bare:
		err = f.Truncate(g.Size)
	}
	if err != nil {
		return fmt.Errorf("grow the disk: %w", err)
	}
	if v, ok := l.Slot(g.Slot); ok {
		if err := growFilesystem(ctx, f, l, v, note); err != nil {
			return fmt.Errorf("grow %s (%s): %w", v, v.FS, err)
		}
	}
	return mount.WaitReleased(ctx, f.Name())
}

// mendGrow is what to do where a filesystem cannot grow.
const mendGrow = "leave out disk.size, or have its own program grow it (resize2fs, xfs_growfs, btrfs filesystem resize) " +
	"in a copy of the image, which may say more"

func growFilesystem(ctx context.Context, f *os.File, l *disk.Layout, v disk.Volume, note func(string)) error {
	i, err := disk.OpenKnown(ctx, f, l, note)
	if err != nil {
		return err
	}
	program := growers[v.FS]
	if program == "" {
		err = i.Grow(ctx, v)
	} else {
		err = i.Replay([]disk.Volume{v}) // the program wants nothing left in the journal
	}
	if err = errors.Join(err, i.Close()); err != nil && fault.Of(err) == "" { // not what the machine lacks
		return fault.New(fault.Image, mendGrow, "%w", err)
	}
	if program == "" || err != nil {
		return err
	}
	if err := mount.WaitReleased(ctx, f.Name()); err != nil {
		return err
	}
	return onFile(ctx, f, v, func(file string) error {
		// It wants the filesystem to have been checked since it was mounted. The verdict
		// checks the image, so it is told to go on.
		if err := run(ctx, tool.Call{Program: program, Args: []string{"-f", file}, What: "grow"}, mendGrow); err != nil {
			return err
		}
		return os.Truncate(file, v.Size) // it cuts a file behind the last whole block
	})
}
