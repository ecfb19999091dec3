package fork

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/tool"
)

// A filesystem gets its UUID and label by the program of its authors, while it is
// mounted nowhere, in a file that shares the fork's blocks: such a program needs no
// loop device then, and knows nothing of the disk. The files that name it were
// rewritten before, in the same fork, which becomes an image only as a whole. Whether
// blkid reads what was asked for is looked at here, and all else by the verdict.

// changer is how a filesystem is given another name.
type changer struct {
	uuid, label command
	longest     int // label, in bytes
}

// command is a program and its arguments, with FILE and VALUE in their places.
type command string

// ext4 with checksums of metadata keeps them by its UUID, so all are written anew.
// tune2fs wants such a filesystem to have been checked since it was mounted; the
// verdict checks it next, so it is told that it was.
var ext = changer{"tune2fs -T now -U VALUE FILE", "tune2fs -L VALUE FILE", 16}

// changers by blkid's name of the filesystem. btrfs gets its new UUID beside the one
// that all its blocks have, as XFS does.
var changers = map[string]changer{
	"ext2":  ext,
	"ext3":  ext,
	"ext4":  ext,
	"xfs":   {"xfs_admin -f -U VALUE FILE", "xfs_admin -f -L VALUE FILE", 12},
	"btrfs": {"btrfstune -M VALUE FILE", "btrfs filesystem label FILE VALUE", 255},
	"vfat":  {"fatlabel -i FILE VALUE", "fatlabel FILE VALUE", 11},
	"swap":  {"swaplabel -U VALUE FILE", "swaplabel -L VALUE FILE", 15},
}

func (c command) program() string { return strings.Fields(string(c))[0] }

func (c command) call(what, file, value string) tool.Call {
	args := strings.Fields(string(c))[1:]
	for i, arg := range args {
		switch arg {
		case "FILE":
			args[i] = file
		case "VALUE":
			args[i] = value
		}
	}
	return tool.Call{Program: c.program(), Args: args, What: what}
}

// renameFilesystems gives the filesystems of an image their new UUIDs and labels. Nothing of it
// is mounted.
func renameFilesystems(ctx context.Context, i *disk.Image, id record.Identity) error {
	if len(id.Filesystems)+len(id.Labels) == 0 {
		return nil
	}
	if err := mount.WaitReleased(ctx, i.File.Name()); err != nil { // what was written before is in the file by then
		return err
	}
	for _, v := range i.Layout.Volumes {
		if err := renameFilesystem(ctx, i.File, v, id); err != nil {
			return fmt.Errorf("give %s (%s) its UUID and label: %w", v, v.FS, err)
		}
	}
	is, err := disk.List(ctx, i.File)
	if err != nil {
		return err
	}
	return compare(i.Layout, is, id)
}

// compare says whether the filesystems have the names that they were to get.
func compare(was, is *disk.Layout, id record.Identity) error {
	for _, v := range was.Volumes {
		uuid, label := newNames(v, id)
		now, ok := is.Slot(v.Slot)
		if !ok || now.FS != v.FS || !strings.EqualFold(now.UUID, uuid) || now.Label != label {
			return fmt.Errorf("%s is %s with UUID %q and label %q, and should be %s with UUID %q and label %q",
				v, now.FS, now.UUID, now.Label, v.FS, uuid, label)
		}
	}
	return nil
}

// newNames are the UUID and label of a filesystem in the image.
func newNames(v disk.Volume, id record.Identity) (uuid, label string) {
	uuid, label = v.UUID, v.Label
	if fresh, ok := id.Filesystems[strings.ToLower(uuid)]; ok {
		uuid = fresh
	}
	if fresh, ok := id.Labels[label]; ok {
		label = fresh
	}
	return uuid, label
}

func renameFilesystem(ctx context.Context, image *os.File, v disk.Volume, id record.Identity) error {
	uuid, label := newNames(v, id)
	if uuid == v.UUID && label == v.Label {
		return nil
	}
	return onFile(ctx, image, v, func(file string) error {
		c := changers[v.FS]
		if uuid != v.UUID {
			if v.FS == "vfat" {
				uuid = strings.ReplaceAll(uuid, "-", "")
			}
			if err := run(ctx, c.uuid.call("set the UUID", file, uuid), mendRename); err != nil {
				return err
			}
		}
		if label == v.Label {
			return nil
		}
		return run(ctx, c.label.call("set the label", file, label), mendRename)
	})
}

// onFile has a volume changed in a file of its own that shares the image's blocks, and
// puts it back.
func onFile(ctx context.Context, image *os.File, v disk.Volume, change func(file string) error) error {
	name := fmt.Sprintf("%s.volume-%d", image.Name(), v.Slot)
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(name)
	defer file.Close()
	if err := file.Truncate(v.Size); err != nil {
		return err
	}
	if err := reflink.Share(ctx, file, 0, image, reflink.Range{Offset: v.Offset, Length: v.Size}); err != nil {
		return err
	}
	if err := change(name); err != nil {
		return err
	}
	return putBack(ctx, image, file, v)
}

// mendRename is what to do where a filesystem has what keeps its UUID from being changed,
// as files that are encrypted by it.
const mendRename = "leave out what identity asks of filesystems"

// run runs a program that knows what it cannot do to a filesystem. mend is what the user
// can.
func run(ctx context.Context, c tool.Call, mend string) error {
	_, err := tool.Run(ctx, c)
	var exit *tool.ExitError
	if errors.As(err, &exit) && exit.Status > 0 {
		return fault.New(fault.Image, mend, "%w", err)
	}
	return err
}

// putBack makes an image have the volume that file is.
func putBack(ctx context.Context, image, file *os.File, v disk.Volume) error {
	fi, err := file.Stat()
	if err != nil {
		return err
	}
	if fi.Size() != v.Size {
		return errors.New("its size changed")
	}
	// Where blocks cannot be shared, only data is copied.
	const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	if err := unix.Fallocate(int(image.Fd()), punch, v.Offset, v.Size); err != nil {
		return fmt.Errorf("make room in %s: %w", image.Name(), err)
	}
	return reflink.Share(ctx, image, v.Offset, file, reflink.Range{Length: v.Size})
}
