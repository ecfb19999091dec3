package mutate

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fork"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/verify"
)

// guests are the guests of one run, over forks of one base.
type guests struct {
	*Engine
	run     *store.Workspace
	layout  *disk.Layout
	closing []func() error // ends of what was started, last first
}

// start runs a guest over a prepared file. It ends with the run, if not before.
func (gs *guests) start(ctx context.Context, file string, readOnly, network bool) (*guest.Guest, error) {
	h, err := gs.Host(ctx)
	if err != nil {
		return nil, err
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if uses(gs.layout, "xfs") || uses(gs.layout, "btrfs") {
		if err := gs.close(); err != nil { // the guest before may still end, and has the lock
			return nil, err
		}
	}
	unlock, err := mount.Claim{Filesystems: gs.layout.Filesystems(), Fork: file, Note: gs.note}.Lock(ctx)
	if err != nil {
		return nil, err
	}
	if err := disarm(gs.layout, file); err != nil {
		unlock()
		return nil, err
	}
	boot, _ := gs.layout.Find(disk.Boot)
	if gs.layout.SELinux && !readOnly {
		// Only real root may write labels. If an image could ask for steps to be
		// real root, by a file in it, it could escape.
		gs.note("the image labels its files for SELinux, which steps cannot: " +
			"have it relabel at its first start (touch /.autorelabel)")
	}
	f, err := os.Open(file)
	if err != nil {
		unlock()
		return nil, err
	}
	defer f.Close()
	opened := make(chan *disk.Tree, 1) // while the guest starts
	go func() { opened <- openESP(gs.layout, f) }()
	g, err := guest.Start(ctx, h, guest.Config{
		Spec: guest.Spec{
			Name: "imgmut-" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12], Image: file,
			ReadOnly: readOnly, PrivateUsers: true, Network: network, BootFS: boot.FS,
		},
		Agent: gs.Agent, Mountpoints: fork.Mountpoints(gs.layout), Resolv: string(resolv), Ended: unlock,
	})
	esp := <-opened
	if err != nil {
		return nil, err
	}
	gs.closing = append(gs.closing, g.Kill)
	g.Cmdline = commandLine(gs.layout, g.Root(), esp)
	return g, nil
}

// disarm keeps the image in a file, which systemd-nspawn is about to mount, from
// asking the machine's kernel to panic.
func disarm(l *disk.Layout, file string) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(l.Disarm(f), f.Close())
}

// commandLine is the kernel's command line as the image's boot loader gives it,
// in the files below root or in the EFI system partition, which may be nil.
// Programs in a step copy it into new loader entries, so that of the machine on
// which the image is built would be in the way of its start.
func commandLine(l *disk.Layout, root *os.File, esp *disk.Tree) string {
	trees := []fs.FS{disk.TreeAt(root)}
	if esp != nil {
		trees = append(trees, esp)
	}
	if line := boot.CommandLine(trees...); line != "" {
		return line
	}
	if v, _ := l.Find(disk.Root); v.UUID != "" {
		return "root=UUID=" + v.UUID + " ro"
	}
	return "ro"
}

// openESP opens the EFI system partition of an image if it has one that can be
// read. It needs no close, but f open while it is read. Of another, verify will tell.
func openESP(l *disk.Layout, f *os.File) *disk.Tree {
	esp, ok := l.Find(disk.ESP)
	if !ok || esp.FS != "vfat" {
		return nil
	}
	tree, err := esp.Open(f, disk.ReadOnly)
	if err != nil {
		return nil
	}
	return tree
}

// stopLater stops a guest behind what comes next.
func (gs *guests) stopLater(g *guest.Guest) {
	stopped := make(chan error, 1)
	go func() { stopped <- g.Stop() }()
	gs.closing = append(gs.closing, func() error { return <-stopped })
}

// close ends whatever still runs.
func (gs *guests) close() error {
	var errs []error
	for i := len(gs.closing) - 1; i >= 0; i-- {
		errs = append(errs, gs.closing[i]())
	}
	gs.closing = nil
	return errors.Join(errs...)
}

// judge judges a finished image. Assertions run on a fork of it that
// systemd-nspawn accepts, because the image itself shows its EFI system
// partition.
func (gs *guests) judge(
	ctx context.Context, file string, assertions []verify.Assertion,
) (_ *record.Verdict, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	i, err := disk.Open(ctx, f, gs.note)
	if err != nil {
		return nil, err
	}
	if gs.layout == nil {
		gs.layout = i.Layout // roles are found before a guest is needed
	}
	letGo := sync.OnceValue(i.Close)
	defer func() { err = errors.Join(err, letGo()) }()
	var asked *guest.Guest
	verdict, err := verify.Image(ctx, verify.Request{
		Image: i, Scratch: gs.run.Path("."), Assertions: assertions,
		Guest: func(ctx context.Context) (verify.Guest, error) {
			// The guest mounts the same filesystems, and takes their locks.
			if err := letGo(); err != nil {
				return nil, err
			}
			scratch := gs.run.Path("verify.raw")
			if err := reflink.CloneFile(scratch, file, 0o600); err != nil {
				return nil, err
			}
			if err := fork.Prepare(scratch, gs.layout); err != nil {
				return nil, err
			}
			var err error
			asked, err = gs.start(ctx, scratch, true, false)
			return asked, err
		},
	})
	if err == nil && asked != nil {
		gs.stopLater(asked) // not killed: that would be a failed unit in the machine's journal
	}
	return verdict, err
}

// uses says whether an image has a volume with that filesystem.
func uses(l *disk.Layout, fs string) bool {
	return slices.ContainsFunc(l.Volumes, func(v disk.Volume) bool { return v.FS == fs })
}
