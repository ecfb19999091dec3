package mutate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/ostree"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/verify"
)

// releaseTime is how long a guest's disk may take to go once its mounts have ended. What
// is not gone by then (a guest that could not be ended) goes with the run's host.
const releaseTime = 10 * time.Second

// guests are the guests of one run, over forks of one base.
type guests struct {
	*Engine
	run     *store.Workspace
	layout  *disk.Layout
	unsure  bool                       // the layout's mounts are another image's, as far as is known
	overlay bool                       // steps find a deployment of ostree in which all can be changed
	fresh   bool                       // no step has run yet
	image   atomic.Pointer[disk.Image] // what the last guest that was started runs in, nil if that has ended
	looked  sync.Mutex                 // is held while the image of a guest that may end is looked into
	closing []func() error             // ends of what was started, last first
	// deployments are those of the image that was judged last, if its system is one of ostree.
	deployments []ostree.Deployment
}

// start runs a guest over a fork, which is mounted as its own files say. It ends
// with the run, if not before.
func (gs *guests) start(ctx context.Context, file string, readOnly, network bool) (*guest.Guest, error) {
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
	for {
		g, current, err := gs.startOn(ctx, file, guest.Spec{Name: guestName(), ReadOnly: readOnly, Network: network})
		if err != nil {
			return nil, err
		}
		if current {
			gs.fresh = false
			gs.closing = append(gs.closing, g.Kill)
			return g, nil
		}
		if err := g.Stop(); err != nil { // a step of another run has changed what is mounted
			return nil, err
		}
	}
}

// startOn mounts an image as it is known and runs a guest in it. While that starts, it
// looks whether the image's files still say the same: if not, gs.layout is what they say.
func (gs *guests) startOn(ctx context.Context, file string, s guest.Spec) (_ *guest.Guest, current bool, err error) {
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, false, err
	}
	image, ended, err := gs.open(ctx, file)
	if err != nil {
		return nil, false, err
	}
	s.Users = mount.GuestUsers(s.Name)
	c := guest.Config{Spec: s, Agent: gs.Agent, Resolv: string(resolv), Ended: ended}
	users, err := s.Users.Namespace()
	if err == nil {
		defer users.Close()
		c.Places, err = image.MountGuest(disk.GuestOptions{
			Users: users, ReadOnly: s.ReadOnly, Unsure: gs.unsure, Overlay: gs.overlay, Fresh: gs.fresh,
		})
	}
	var h Host
	if err == nil {
		h, err = gs.Host(ctx)
	}
	if err != nil {
		ended()
		return nil, false, fmt.Errorf("start guest: %w", err)
	}
	var looking sync.WaitGroup
	var changed bool
	var line string
	var lookErr error
	looking.Go(func() {
		if changed, lookErr = image.MountsChanged(); lookErr == nil {
			line = image.CommandLine()
		}
	})
	c.Ended = func() { looking.Wait(); ended() }
	g, err := guest.Start(ctx, h, c)
	looking.Wait()
	if err == nil && lookErr != nil {
		err = errors.Join(fmt.Errorf("start guest: %w", lookErr), g.Kill())
	}
	if err != nil {
		return nil, false, err
	}
	gs.image.Store(image)
	gs.layout, gs.unsure, g.Cmdline = image.Layout, false, line
	return g, !changed, nil
}

// open opens the fork of a guest. ended lets go of it, once a look into it is over that
// has been asked for by keepImage.
func (gs *guests) open(ctx context.Context, file string) (image *disk.Image, ended func(), err error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	if image, err = disk.OpenKnown(ctx, f, gs.layout, gs.note); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return image, func() {
		gs.looked.Lock()
		defer gs.looked.Unlock()
		// Errors are of what was only read, or was synced already.
		image.Close()
		f.Close()
		released, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
		defer cancel()
		mount.WaitReleased(released, file)
		gs.image.CompareAndSwap(image, nil)
	}, nil
}

// keepImage gives the image of the guest that is about to end, and keeps it open until
// done is called: what it holds has been read already, and need not be again.
func (gs *guests) keepImage() (image *disk.Image, done func()) {
	gs.looked.Lock()
	return gs.image.Load(), gs.looked.Unlock
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
			lacks, err := i.LacksPlaces()
			// The guest mounts the same filesystems, and takes their locks.
			if err := errors.Join(err, letGo()); err != nil {
				return nil, err
			}
			scratch := gs.run.Path("verify.raw")
			if err := reflink.CloneFile(scratch, file, 0o600); err != nil {
				return nil, err
			}
			// Of the image itself, whose partitions have other names than those of the base.
			// Its roles have been found by now.
			gs.layout, gs.overlay = i.Layout, false
			if lacks {
				if err := gs.makePlaces(ctx, scratch); err != nil {
					return nil, err
				}
			}
			if asked, err = gs.start(ctx, scratch, true, false); err != nil {
				return nil, err
			}
			return askedGuest{asked, sealedIn(gs.image.Load(), asked)}, nil
		},
	})
	gs.deployments = i.Layout.Deployments
	if err == nil && asked != nil {
		gs.stopLater(asked) // not killed: that would be a failed unit in the machine's journal
	}
	return verdict, err
}

// makePlaces makes the directories that root lacks for what is mounted there, as the
// system does at its start: a guest that can write does as well.
func (gs *guests) makePlaces(ctx context.Context, file string) error {
	g, err := gs.start(ctx, file, false, false)
	if err != nil {
		return err
	}
	return g.Stop()
}

// mountedOnce says whether the kernel is one that mounts a filesystem of the image only
// once: of a guest and an image that is finished, one has to wait for the other.
func mountedOnce(l *disk.Layout) bool {
	return slices.ContainsFunc(l.Volumes, func(v disk.Volume) bool { return mount.MountedOnce(v.FS) })
}
