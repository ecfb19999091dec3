package mutate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/imgmut/imgmut/mutate/disk"
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
	image   *disk.Image    // what the last guest that was started runs in
	closing []func() error // ends of what was started, last first
}

// start runs a guest over a fork, which is mounted as its own files say. It ends
// with the run, if not before.
func (gs *guests) start(ctx context.Context, file string, readOnly, network bool) (_ *guest.Guest, err error) {
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if mountedOnce(gs.layout) { // the guest before may still end, and has the lock
		if err := gs.close(); err != nil {
			return nil, err
		}
	}
	if gs.layout.SELinux && !readOnly {
		// Only real root may write labels. If an image could ask for steps to be
		// real root, by a file in it, it could escape.
		gs.note("the image labels its files for SELinux, which steps cannot: " +
			"have it relabel at its first start (touch /.autorelabel)")
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	image, err := disk.OpenKnown(ctx, f, gs.layout, gs.note)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	c := guest.Config{
		Spec:  guest.Spec{Name: guestName(), ReadOnly: readOnly, Network: network},
		Agent: gs.Agent, Resolv: string(resolv),
		Ended: func() {
			// Errors are of what was only read, or was synced already.
			image.Close()
			f.Close()
			mount.WaitReleased(context.WithoutCancel(ctx), file)
		},
	}
	c.Users = mount.GuestUsers(c.Name)
	line := make(chan string, 1)
	g, err := gs.startOn(ctx, image, c, func() { line <- image.CommandLine() })
	if err != nil {
		return nil, err
	}
	gs.closing = append(gs.closing, g.Kill)
	gs.image = image
	g.Cmdline = <-line
	return g, nil
}

// startOn mounts an image and runs a guest in it. While that starts, meanwhile is called.
func (gs *guests) startOn(ctx context.Context, image *disk.Image, c guest.Config, meanwhile func()) (*guest.Guest, error) {
	users, err := c.Users.Namespace()
	if err == nil {
		defer users.Close()
		c.Places, err = image.MountGuest(disk.GuestOptions{Users: users, ReadOnly: c.ReadOnly})
	}
	var h Host
	if err == nil {
		h, err = gs.Host(ctx)
	}
	if err != nil {
		c.Ended()
		return nil, fmt.Errorf("start guest: %w", err)
	}
	var done sync.WaitGroup
	done.Go(meanwhile)
	defer done.Wait() // it reads the image, which ends with the guest
	return guest.Start(ctx, h, c)
}

// guestName makes the name of a machine that no other has.
func guestName() string { return "imgmut-" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12] }

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

// judge judges a finished image. was is what is known of its base, nil if nothing is.
// Assertions run on a fork of it.
func (gs *guests) judge(
	ctx context.Context, file string, was *verify.Base, assertions []verify.Assertion,
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
	letGo := sync.OnceValue(i.Close)
	defer func() { err = errors.Join(err, letGo()) }()
	var asked *guest.Guest
	verdict, err := verify.Image(ctx, verify.Request{
		Image: i, Scratch: gs.run.Path("."), Base: was, Assertions: assertions,
		Guest: func(ctx context.Context) (verify.Guest, error) {
			// The guest mounts the same filesystems, and takes their locks.
			if err := letGo(); err != nil {
				return nil, err
			}
			scratch := gs.run.Path("verify.raw")
			if err := reflink.CloneFile(scratch, file, 0o600); err != nil {
				return nil, err
			}
			// Of the image itself, whose partitions have other names than those of the base.
			// Its roles have been found by now.
			gs.layout = i.Layout
			var err error
			if asked, err = gs.start(ctx, scratch, true, false); err != nil {
				return nil, err
			}
			return askedGuest{asked, sealedIn(gs.image, asked)}, nil
		},
	})
	if err == nil && asked != nil {
		gs.stopLater(asked) // not killed: that would be a failed unit in the machine's journal
	}
	return verdict, err
}

// mountedOnce says whether the kernel is one that mounts a filesystem of the image only
// once: of a guest and an image that is finished, one has to wait for the other.
func mountedOnce(l *disk.Layout) bool {
	return slices.ContainsFunc(l.Volumes, func(v disk.Volume) bool { return mount.MountedOnce(v.FS) })
}
