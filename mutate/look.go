package mutate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/fork"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/printable"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/verify"
)

// looked is what was found in an image.
type looked struct {
	layout *disk.Layout
	found  []verify.Finding
	files  *verify.Remembered
	// unreplayed are volumes whose journals hold more: if there are any, nothing else
	// is known. See settled.
	unreplayed []disk.Volume
}

// wrong are what is wrong with it already, as it is kept.
func (l *looked) wrong() (keys []string) {
	for _, f := range l.found {
		if !f.Note {
			keys = append(keys, f.Key)
		}
	}
	return keys
}

// judge puts what was found into the record of a base.
func (l *looked) judge(b *record.Base) {
	b.Findings, b.Judged, b.Clean, b.Naming = l.wrong(), verify.Judges(), l.files.Clean, l.files.Naming
}

// words say what was found, of an image that came in such formats: "debian 12 for x86-64,
// 2 GiB with a GPT, root ext4 in partition 2; a qcow2 in xz".
func (l *looked) words(size int64, is []string) string {
	w := cmp.Or(l.layout.OS, "a system that does not say its name")
	if l.layout.Arch != "" {
		w += " for " + l.layout.Arch
	}
	w += ", " + printable.Size(size)
	root, _ := l.layout.Find(disk.Root)
	switch l.layout.Table {
	case disk.GPT:
		w += fmt.Sprintf(" with a GPT, root %s in %s", root.FS, root)
	case disk.MBR:
		w += fmt.Sprintf(" with an MBR, root %s in %s", root.FS, root)
	case disk.Bare:
		w += ", root is " + root.FS + ", with no partitions"
	}
	for n, form := range slices.Backward(is) {
		if n == len(is)-1 {
			w += "; " + form
		} else {
			w += " in " + form
		}
	}
	return w
}

// lookInto finds out what is in an image, and that imgmut can work on it, and tells. Of
// one with journals that are still to be replayed it finds out no more than that.
func (e *Engine) lookInto(ctx context.Context, f *os.File) (_ *looked, err error) {
	i, err := disk.Open(ctx, f, e.note)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	err = i.FindRoles()
	if dirty := i.Unreplayed(); len(dirty) > 0 { // an error may be about what a journal mends
		return &looked{unreplayed: dirty}, nil
	}
	if err != nil {
		return nil, err
	}
	l, err := lookAt(ctx, i)
	if err != nil {
		return nil, err
	}
	for n, found := range l.found {
		if n == maxTold {
			e.note(fmt.Sprintf("note: and %d more: imgmut doctor tells all", len(l.found)-n))
			break
		}
		e.note("note: found in the base: " + found.Check + ": " + found.What)
	}
	for _, file := range l.files.InInitrds {
		e.note(stuck(file))
	}
	if l.layout.Grown {
		e.note("note: " + enlarged)
	}
	return l, nil
}

// maxTold is how many findings in a base are told.
const maxTold = 20

// stuck tells of a file in which a partition UUID cannot be rewritten.
func stuck(file string) string {
	return file + " names a partition by its UUID, which every image has anew: " +
		"have a step name the volume by its filesystem's UUID and make that file anew"
}

// lookAt is lookInto for an image that is open. It tells nothing.
func lookAt(ctx context.Context, i *disk.Image) (*looked, error) {
	if err := i.FindRoles(); err != nil {
		return nil, err
	}
	if err := fork.CheckSupported(i.Layout); err != nil {
		return nil, err
	}
	if err := verify.CheckFeatures(ctx, i); err != nil {
		return nil, err
	}
	l := &looked{layout: i.Layout}
	var err error
	if l.found, err = verify.Findings(ctx, i); err != nil {
		return nil, err
	}
	l.files, err = verify.Remember(ctx, i)
	return l, err
}

// settled is what is in an image once the system has started again: if it was running
// when the image was taken, what counts is still in the journals. So it looks into a
// fork in which they are replayed. The file stays as it is.
func (e *Engine) settled(ctx context.Context, run *store.Workspace, file string, l *looked) (_ *looked, err error) {
	if len(l.unreplayed) == 0 {
		return l, nil
	}
	replayed := run.Path("replayed.raw")
	if err := reflink.CloneFile(replayed, file, 0o600); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(replayed, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, f.Close(), mount.WaitReleased(context.WithoutCancel(ctx), replayed), os.Remove(replayed))
	}()
	if err := e.replay(ctx, f, l.unreplayed); err != nil {
		return nil, err
	}
	var names []string
	for _, v := range l.unreplayed {
		names = append(names, fmt.Sprintf("%s (%s)", v, v.FS))
	}
	e.note("note: the image is of a system that was running: changes are still in the journal of " + strings.Join(names, ", ") + ". " +
		"What counts is what it is when they are replayed; the base stays as it is")
	if l, err = e.lookInto(ctx, f); err == nil && len(l.unreplayed) > 0 {
		err = fault.New(fault.Image,
			"start and stop a machine of it once, or check it with e2fsck, xfs_repair or btrfs check, on a copy of the image",
			"the journal of %s (%s) cannot be replayed", l.unreplayed[0], l.unreplayed[0].FS)
	}
	return l, err
}

// replay has the kernel replay the journals of volumes in a fork.
func (e *Engine) replay(ctx context.Context, f *os.File, volumes []disk.Volume) error {
	i, err := disk.Open(ctx, f, e.note)
	if err != nil {
		return err
	}
	if err = errors.Join(i.Replay(volumes), i.Close()); err != nil {
		return fault.New(fault.Image, "check the filesystem with its own program (e2fsck, xfs_repair, btrfs check) on a copy of the image",
			"replay journals: %w", err)
	}
	return nil
}

// findings are what is wrong with a base, by the checks of this version.
func (e *Engine) findings(ctx context.Context, b *record.Base) ([]string, error) {
	if b.Judged == verify.Judges() {
		return b.Findings, nil
	}
	f, err := os.Open(e.Catalog().BaseFile(b.Digest))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := e.lookInto(ctx, f)
	if err == nil {
		l, err = e.settledBase(ctx, b, l)
	}
	if err != nil {
		return nil, fmt.Errorf("base %.12s: %w", b.Digest, err)
	}
	return l.wrong(), e.Store.Update(ctx, store.Bases, b.Digest, b, func() error {
		l.judge(b)
		return nil
	})
}

// settledBase is settled for a base of the store.
func (e *Engine) settledBase(ctx context.Context, b *record.Base, l *looked) (_ *looked, err error) {
	if len(l.unreplayed) == 0 {
		return l, nil
	}
	run, err := e.Store.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	return e.settled(ctx, run, e.Catalog().BaseFile(b.Digest), l)
}
