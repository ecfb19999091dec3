package mutate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/verify"
)

// guests are the guests of one run, over forks of one base.
type guests struct {
	*Engine
	run     *store.Run
	layout  *disk.Layout
	closing []func() error // ends of what was started, last first
}

// start runs a guest over a prepared file. It ends with the run, if not before.
func (gs *guests) start(ctx context.Context, file string, readOnly bool) (*guest.Guest, error) {
	h, err := gs.Host(ctx)
	if err != nil {
		return nil, err
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	unlock, err := lockFilesystems(ctx, gs.layout)
	if err != nil {
		return nil, err
	}
	boot, _ := gs.layout.Find(disk.Boot)
	// Labels are the one thing in an image that only the machine's root can
	// write, so where a step may have to, it must be that.
	privileged := gs.layout.SELinux && !readOnly
	if privileged {
		gs.note("the image labels its files for SELinux: the steps run without a user namespace")
	}
	g, err := guest.Start(ctx, h, guest.Config{
		Spec: guest.Spec{
			Name: "imgmut-" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12], Image: file,
			ReadOnly: readOnly, PrivateUsers: !privileged, BootFS: boot.FS,
		},
		Agent: gs.Agent, Mountpoints: mountpoints(gs.layout), Resolv: string(resolv), Ended: unlock,
	})
	if err != nil {
		return nil, err
	}
	gs.closing = append(gs.closing, g.Kill)
	return g, nil
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
func (gs *guests) judge(ctx context.Context, file string, assertions []verify.Assertion) (*verify.Verdict, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return verify.Image(ctx, verify.Request{
		File: f, Scratch: gs.run.Path("."), Assertions: assertions,
		Guest: func(ctx context.Context) (verify.Guest, error) {
			scratch := gs.run.Path("verify.raw")
			if err := reflink.CloneFile(scratch, file, 0o600); err != nil {
				return nil, err
			}
			if err := prepare(scratch, gs.layout); err != nil {
				return nil, err
			}
			return gs.start(ctx, scratch, true)
		},
	})
}

// filesystemLocks is where the locks on filesystem UUIDs are. They are the
// whole machine's, not the store's, because the kernel is.
const filesystemLocks = "/run/imgmut"

// lockFilesystems waits until no other imgmut on this machine has a filesystem
// with one of these UUIDs mounted: the kernel refuses to mount two forks of
// one XFS, and on older kernels of one btrfs, at a time.
func lockFilesystems(ctx context.Context, l *disk.Layout) (unlock func(), err error) {
	var unlocks []func()
	unlock = func() {
		for _, u := range unlocks {
			u()
		}
	}
	var uuids []string
	for _, v := range l.Volumes {
		if (v.FS == "xfs" || v.FS == "btrfs") && v.UUID != "" {
			uuids = append(uuids, v.UUID)
		}
	}
	if len(uuids) == 0 {
		return unlock, nil
	}
	if err := os.MkdirAll(filesystemLocks, 0o755); err != nil {
		return nil, err
	}
	slices.Sort(uuids) // in one order, or two builds could wait for each other
	for _, u := range slices.Compact(uuids) {
		one, err := store.LockFile(ctx, filepath.Join(filesystemLocks, "filesystem-"+u+".lock"))
		if err != nil {
			unlock()
			return nil, errors.Join(fmt.Errorf("wait for other forks of filesystem %s", u), err)
		}
		unlocks = append(unlocks, one)
	}
	return unlock, nil
}
