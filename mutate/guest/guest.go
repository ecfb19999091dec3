// Package guest runs a forked image and talks to the agent in it.
//
// A guest is one systemd-nspawn container over a fork, started through a
// [Host] that this package knows only by one method. It lives as long as
// there are steps to run; between two of them [Guest.Snapshot] takes a
// consistent clone of the fork while it stays mounted.
//
// There are two ways to end it. [Guest.Stop] is for success: it returns when
// nothing of the guest is left, and says so if it went wrong. [Guest.Kill] is
// for defer: it does nothing after Stop.
package guest

import (
	"bufio"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/mount"
)

// Host starts guests: the machine's own systemd, or a private one.
type Host interface {
	Start(ctx context.Context, s Spec) (Machine, error)
}

// Spec is what a host has to run.
type Spec struct {
	Name     string // of the machine and the unit; unique on the host
	ReadOnly bool
	Users    mount.Users // which own nothing on the host
	Network  bool        // it may be in the machine's network; else it has nothing but loopback
	Command  []string
	Binds    map[string]string // read-only: path in the guest to path on the host
	Devices  []string          // block devices that may be opened, as /dev/block/MAJOR:MINOR
	Lent     bool              // something is lent, which appears at [agent.LentDir]
	// Stdin gives the unit's program a [mount.Handover], with what Command is to read.
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File
}

// Machine is a guest as the host sees it.
type Machine interface {
	// Wait returns when the machine is gone; an error if it ended badly.
	Wait(ctx context.Context) error
	// Terminate ends it. It does nothing if it has ended.
	Terminate(ctx context.Context) error
}

// Config says which guest to start.
type Config struct {
	Spec
	Agent  string        // path on the host of the static agent binary
	Resolv string        // text of resolv.conf for commands that have the network
	Places []mount.Place // what is mounted, / first
	Lends  []mount.Lent  // what is lent beside that: see [agent.Lend]
	// Ended is called once when nothing of the guest is left, or when it could
	// not be started.
	Ended func()
}

// LostError says that the guest ended while it was needed.
type LostError struct {
	Log   string // what systemd-nspawn said last
	Cause error
}

func (e *LostError) Error() string {
	msg := "the guest ended unexpectedly"
	if e.Log != "" {
		msg = "systemd-nspawn: " + e.Log
	} else if e.Cause != nil {
		msg += ": " + e.Cause.Error()
	}
	return msg
}

func (e *LostError) Unwrap() error { return e.Cause }

// checkLinks refuses an image with a link where systemd-nspawn mounts a filesystem
// of its own. It follows the link, and hides what the image has at its end: what
// steps write there would be lost. A /tmp may be a link: the agent makes that, and
// follows none.
func checkLinks(root *os.File) error {
	for _, name := range []string{"run", "dev", "proc", "sys"} {
		var st unix.Stat_t
		if err := unix.Fstatat(int(root.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("look at the guest's /%s: %w", name, err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return fault.New(fault.Image, "make /"+name+" an empty directory in a copy of the image, as in every system",
				"/%s is a symbolic link in the image: systemd-nspawn would hide what is at its end", name)
		}
	}
	return nil
}

// checkAgent refuses an agent that names an interpreter: imgmut was built so
// that it needs a C library, which the image may not have.
func checkAgent(path string) error {
	program, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("read the agent: %w", err)
	}
	defer program.Close()
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			return fault.New(fault.Host, "build imgmut with CGO_ENABLED=0",
				"%s needs a C library, which the image may not have, so it cannot be the agent in it", path)
		}
	}
	return nil
}

// Guest is a running image. Its methods are for one goroutine at a time.
type Guest struct {
	// Cmdline is what commands see as the kernel's command line: the machine's
	// own if empty.
	Cmdline string

	machine Machine
	network bool
	resolv  string
	in      *os.File // to the agent
	out     *bufio.Reader
	outFile *os.File
	log     *tail
	root    *os.File   // of the tree, with all that is mounted in it, but not what systemd-nspawn adds
	mounts  []*os.File // one of each filesystem that can be written to, held from the start: see Snapshot
	ended   bool
	onEnd   func()
}

// Start runs the guest and returns when its agent is ready.
func Start(ctx context.Context, h Host, c Config) (_ *Guest, err error) {
	g := &Guest{network: c.Network, resolv: c.Resolv, log: newTail(), onEnd: c.Ended}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Kill())
		}
	}()
	if err := checkAgent(c.Agent); err != nil {
		return nil, err
	}
	if err := g.hold(c.Places); err != nil {
		return nil, fmt.Errorf("start guest: %w", err)
	}
	stdin, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	widen(in)
	g.in = in
	out, stdout, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	g.outFile, g.out = out, bufio.NewReaderSize(out, 64<<10)
	stderr, err := g.log.open()
	if err != nil {
		return nil, err
	}
	defer stderr.Close()

	socket, err := handOver(c, stdin)
	if err != nil {
		return nil, fmt.Errorf("start guest: %w", err)
	}
	defer socket.Close()
	c.Spec.Stdin, c.Spec.Stdout, c.Spec.Stderr = socket, stdout, stderr
	c.Spec.Command = []string{agent.Path, agent.Arg}
	c.Spec.Binds = map[string]string{agent.Path: c.Agent}
	c.Spec.Lent = len(c.Lends) > 0
	if g.machine, err = h.Start(ctx, c.Spec); err != nil {
		stderr.Close()
		if log := g.log.text(); log != "" {
			err = &LostError{log, err}
		}
		return nil, fmt.Errorf("start guest: %w", err)
	}
	stdin.Close()
	stdout.Close()
	stderr.Close()
	socket.Close()
	if err := g.greet(ctx); err != nil {
		return nil, fmt.Errorf("start guest: %w", err)
	}
	return g, nil
}

// handOver sends what the unit's program is to mount and to read, which it finds
// when it starts.
func handOver(c Config, stdin *os.File) (theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "handover"), os.NewFile(uintptr(fds[1]), "handover")
	defer ours.Close()
	h := mount.Handover{Places: c.Places, Owner: c.Users.Shift, Stdin: stdin, Lent: c.Lends}
	if err := h.Send(ours); err != nil {
		theirs.Close()
		return nil, err
	}
	return theirs, nil
}

// Root is the root directory of the guest's image, with all that is mounted of it.
// It is the guest's to close.
func (g *Guest) Root() *os.File { return g.root }

// widen lets a pipe hold as much as users may ask for (pipe(7), pipe-max-size),
// so that whoever reads it sleeps less often. Less is slower, and nothing else.
func widen(pipe *os.File) {
	if c, err := pipe.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 1<<20) })
	}
}

// greet waits for the agent's hello.
func (g *Guest) greet(ctx context.Context) error {
	defer g.abandon(ctx)()
	kind, _, err := g.receive(ctx)
	if err == nil && kind != agent.Hello {
		err = agent.ErrProtocol
	}
	return err
}

// stopTime is how long a guest may take to end.
const stopTime = 30 * time.Second

// Stop ends the guest and returns when the host has let go of it.
func (g *Guest) Stop() error {
	if g.ended {
		return nil
	}
	g.ended = true
	defer g.onEnd()
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	g.closeMounts()
	g.in.Close() // the agent's sign to exit
	err := g.machine.Wait(ctx)
	if err != nil {
		err = fmt.Errorf("stop guest: %w", errors.Join(err, g.machine.Terminate(ctx)))
	}
	g.outFile.Close()
	g.log.close()
	return err
}

// Kill ends the guest at once, for defer. It does nothing after [Guest.Stop].
func (g *Guest) Kill() error {
	if g.ended {
		return nil
	}
	g.ended = true
	defer g.onEnd()
	g.closeMounts()
	var err error
	if g.machine != nil {
		// Not the caller's context: it is often the reason to be here.
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		err = g.machine.Terminate(ctx)
	}
	for _, f := range []*os.File{g.in, g.outFile} {
		if f != nil {
			f.Close()
		}
	}
	g.log.close()
	return err
}

func (g *Guest) closeMounts() {
	for _, m := range g.mounts {
		m.Close()
	}
	g.mounts = nil
	if g.root != nil {
		g.root.Close()
	}
}
