package mutate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/loop"
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
	unlock, err := lockFilesystems(ctx, gs.layout, file, "xfs", "btrfs")
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
	unlock, err := lockFilesystems(ctx, gs.layout, file, "btrfs")
	if err != nil {
		return nil, err
	}
	unlock = sync.OnceFunc(unlock)
	defer unlock()
	return verify.Image(ctx, verify.Request{
		File: f, Scratch: gs.run.Path("."), Assertions: assertions,
		Guest: func(ctx context.Context) (verify.Guest, error) {
			unlock() // nothing is mounted any more, and the guest takes the lock for itself
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

// machineLocks is where the locks are that all stores of a machine share:
// there is one kernel to mount filesystems, and one machined.
const machineLocks = "/run/imgmut"

func lockMachine(ctx context.Context, name string) (unlock func(), err error) {
	if err := os.MkdirAll(machineLocks, 0o755); err != nil {
		return nil, err
	}
	return store.LockFile(ctx, filepath.Join(machineLocks, name+".lock"))
}

// uses says whether an image has a volume with that filesystem.
func uses(l *disk.Layout, fs string) bool {
	return slices.ContainsFunc(l.Volumes, func(v disk.Volume) bool { return v.FS == fs })
}

// assignRoles mounts what may be root to look for one.
func assignRoles(ctx context.Context, l *disk.Layout, f *os.File) error {
	unlock, err := lockFilesystems(ctx, l, f.Name(), "btrfs")
	if err != nil {
		return err
	}
	defer unlock()
	return l.AssignRoles(f)
}

// lockFilesystems waits until no other imgmut on this machine has a filesystem
// of one of these kinds with one of the image's UUIDs mounted: the kernel
// refuses to mount two forks of one XFS at a time, and before Linux 6.7 two of
// one btrfs. For an XFS that is systemd-nspawn alone: imgmut's own mounts are
// made with nouuid. file is the image that is about to be mounted.
func lockFilesystems(ctx context.Context, l *disk.Layout, file string, kinds ...string) (unlock func(), err error) {
	var unlocks []func()
	unlock = func() {
		for _, u := range unlocks {
			u()
		}
	}
	var uuids []string
	for _, v := range l.Volumes {
		if slices.Contains(kinds, v.FS) && v.UUID != "" {
			uuids = append(uuids, v.UUID)
		}
	}
	if len(uuids) == 0 {
		return unlock, nil
	}
	slices.Sort(uuids) // in one order, or two builds could wait for each other
	for _, u := range slices.Compact(uuids) {
		one, err := lockFilesystem(ctx, u, file)
		if err != nil {
			unlock()
			return nil, fmt.Errorf("wait for other forks of filesystem %s: %w", u, err)
		}
		unlocks = append(unlocks, one)
	}
	return unlock, nil
}

// lockFilesystem takes the lock of one UUID. Beside it stands which file is
// mounted: who is killed loses the lock at once, but the kernel has the mount
// for a while, or until somebody thaws it, and the next to come must see to that.
func lockFilesystem(ctx context.Context, uuid, file string) (unlock func(), err error) {
	release, err := lockMachine(ctx, "filesystem-"+uuid)
	if err != nil {
		return nil, err
	}
	note := filepath.Join(machineLocks, "filesystem-"+uuid+".mounted")
	if left, err := os.ReadFile(note); err == nil {
		if err := loop.Recover(string(left)); err != nil {
			release()
			return nil, err
		}
	}
	if err := os.WriteFile(note, []byte(file), 0o600); err != nil {
		release()
		return nil, err
	}
	return func() {
		os.Remove(note)
		release()
	}, nil
}
