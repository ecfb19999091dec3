// Package guest runs a forked image and talks to the agent in it.
//
// A guest is one systemd-nspawn container over a fork, started through a
// [Host] that this package knows only by three methods. It lives as long as
// there are steps to run; between two of them [Guest.Snapshot] takes a
// consistent clone of the fork while it stays mounted.
//
// There are two ways to end it. [Guest.Stop] is for success: it returns when
// nothing of the guest is left, and says so if it went wrong. [Guest.Kill] is
// for defer: it does nothing after Stop.
package guest

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/step"
)

// Host starts guests: the machine's own systemd, or a private one.
type Host interface {
	Start(ctx context.Context, s Spec) (Machine, error)
}

// Spec is what a host has to run.
type Spec struct {
	Name         string // of the machine and the unit; unique on the host
	Image        string // absolute path of a raw image
	ReadOnly     bool
	PrivateUsers bool   // run as users that own nothing on the host
	BootFS       string // filesystem of a separate /boot, for systemd 259 and later; may be empty
	Command      []string
	Binds        map[string]string // read-only: path in the guest to path on the host
	Stdin        *os.File
	Stdout       *os.File
	Stderr       *os.File
}

// Machine is a guest as the host sees it.
type Machine interface {
	// Root opens the guest's root directory.
	Root(ctx context.Context) (*os.File, error)
	// Wait returns when the machine is gone; an error if it ended badly.
	Wait(ctx context.Context) error
	// Terminate ends it. It does nothing if it has ended.
	Terminate(ctx context.Context) error
}

// Config says which guest to start.
type Config struct {
	Spec
	Agent       string   // path on the host of the static agent binary
	Mountpoints []string // where the image's volumes are mounted in the guest, / first
	Resolv      string   // text of resolv.conf for commands that have the network
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

// AgentError says that imgmut was built so that it cannot be the agent.
type AgentError struct{ Path string }

func (e *AgentError) Error() string {
	return e.Path + " needs a C library, which the image may not have, so it cannot be the agent in it"
}

// Hint is how to build it.
func (e *AgentError) Hint() string { return "build imgmut with CGO_ENABLED=0" }

// checkAgent looks for the interpreter that a dynamic program names.
func checkAgent(path string) error {
	program, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("read the agent: %w", err)
	}
	defer program.Close()
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			return &AgentError{path}
		}
	}
	return nil
}

// Guest is a running image. Its methods are for one goroutine at a time.
type Guest struct {
	machine Machine
	resolv  string
	in      *os.File // to the agent
	out     *bufio.Reader
	outFile *os.File
	log     *tail
	mounts  []*os.File // the volumes' roots, held from the start: see Snapshot
	ended   bool
	onEnd   func()
}

// Start runs the guest and returns when its agent is ready.
func Start(ctx context.Context, h Host, c Config) (_ *Guest, err error) {
	g := &Guest{resolv: c.Resolv, log: newTail(), onEnd: c.Ended}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Kill())
		}
	}()
	if err := checkAgent(c.Agent); err != nil {
		return nil, err
	}
	stdin, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
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

	c.Spec.Stdin, c.Spec.Stdout, c.Spec.Stderr = stdin, stdout, stderr
	c.Spec.Command = []string{agent.Path, "agent"}
	c.Spec.Binds = map[string]string{agent.Path: c.Agent}
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
	if err := g.greet(ctx); err != nil {
		return nil, fmt.Errorf("start guest: %w", err)
	}
	if g.mounts, err = openMounts(ctx, g.machine, c.Mountpoints); err != nil {
		return nil, fmt.Errorf("start guest: %w", err)
	}
	return g, nil
}

// greet waits for the agent's hello.
func (g *Guest) greet(ctx context.Context) error {
	kind, _, err := g.receive(ctx)
	if err == nil && kind != agent.Hello {
		err = agent.ErrProtocol
	}
	return err
}

// receive reads a frame; when the context ends it stops the guest, as there is
// no other way to stop what the agent does.
func (g *Guest) receive(ctx context.Context) (kind byte, payload []byte, err error) {
	stop := context.AfterFunc(ctx, func() { g.outFile.SetReadDeadline(time.Now()) })
	defer stop()
	kind, payload, err = agent.ReadFrame(g.out)
	if err == nil {
		return kind, payload, nil
	}
	if ctx.Err() != nil {
		return 0, nil, context.Cause(ctx)
	}
	return 0, nil, g.lost(err)
}

// lost explains why the agent fell silent.
func (g *Guest) lost(err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err == io.EOF {
		err = nil
	}
	g.closeMounts()
	err = errors.Join(err, g.machine.Wait(ctx))
	return &LostError{g.log.text(), err}
}

// call sends a request, what follows it, and reads the answer. data gets the
// output or the bytes of a file.
func (g *Guest) call(ctx context.Context, c agent.Call, send func(io.Writer) error, data func([]byte)) (agent.Reply, error) {
	var reply agent.Reply
	if err := agent.WriteJSON(g.in, agent.Request, c); err != nil {
		return reply, g.lost(err)
	}
	if send != nil {
		if err := send(frames{g.in}); err != nil {
			return reply, err
		}
		if err := agent.WriteFrame(g.in, agent.End, nil); err != nil {
			return reply, g.lost(err)
		}
	}
	for {
		kind, payload, err := g.receive(ctx)
		if err != nil {
			return reply, err
		}
		switch kind {
		case agent.Output, agent.Data:
			data(payload)
		case agent.Result:
			if err := json.Unmarshal(payload, &reply); err != nil {
				return reply, fmt.Errorf("read result: %w", errors.Join(err, agent.ErrProtocol))
			}
			return reply, replyError(reply)
		default:
			return reply, fmt.Errorf("frame %q as an answer: %w", kind, agent.ErrProtocol)
		}
	}
}

// frames is a writer that makes data frames.
type frames struct{ w io.Writer }

func (f frames) Write(b []byte) (int, error) {
	for piece := range slices.Chunk(b, agent.MaxFrame) {
		if err := agent.WriteFrame(f.w, agent.Data, piece); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// replyError is the agent's error with what it wrapped, so that a caller can
// ask for [io/fs.ErrNotExist].
func replyError(r agent.Reply) error {
	if r.Error == "" {
		return nil
	}
	return &remoteError{r.Error, r.Errno}
}

type remoteError struct {
	text  string
	errno error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.errno }

// Exec runs a command and gives its output to out as it comes; a
// [step.ExitError] if it did not succeed.
func (g *Guest) Exec(ctx context.Context, c step.Command, network bool, out func([]byte)) error {
	call := &agent.RunCall{Argv: c.Argv, Script: c.Script, Dir: c.Dir, Timeout: c.Timeout, Network: network}
	if network {
		call.Resolv = g.resolv
	}
	for _, k := range slices.Sorted(maps.Keys(c.Env)) {
		call.Env = append(call.Env, k+"="+c.Env[k])
	}
	for _, cover := range c.Covers {
		call.Covers = append(call.Covers, agent.Cover(cover))
	}
	reply, err := g.call(ctx, agent.Call{Run: call}, nil, out)
	if err != nil {
		return err
	}
	return exitError(c, reply.Exit)
}

func exitError(c step.Command, s *agent.ExitStatus) error {
	e := &step.ExitError{Command: "script", Code: s.Code}
	if len(c.Argv) > 0 {
		e.Command = c.Argv[0]
	}
	switch {
	case s.TimedOut:
		e.Code, e.Reason = -1, fmt.Sprintf("still running after %s", c.Timeout)
	case s.Signal != "":
		e.Reason = "killed by " + s.Signal
	case s.Code != 0:
		e.Reason = fmt.Sprintf("exit status %d", s.Code)
	default:
		return nil
	}
	return e
}

// Put unpacks a tar stream in the guest; see [step.Guest].
func (g *Guest) Put(ctx context.Context, write func(*tar.Writer) error) error {
	_, err := g.call(ctx, agent.Call{Put: true}, func(w io.Writer) error {
		buffered := bufio.NewWriterSize(w, 256<<10)
		t := tar.NewWriter(buffered)
		if err := write(t); err != nil {
			return err // the stream has no end, so the guest is of no use any more
		}
		return errors.Join(t.Close(), buffered.Flush())
	}, nil)
	return err
}

// ReadFile reads a file of the guest.
func (g *Guest) ReadFile(ctx context.Context, name string) ([]byte, error) {
	var b bytes.Buffer
	_, err := g.call(ctx, agent.Call{Read: name}, nil, func(p []byte) { b.Write(p) })
	return b.Bytes(), err
}

// Stat describes a file of the guest, without following a link.
func (g *Guest) Stat(ctx context.Context, name string) (*agent.Stat, error) {
	reply, err := g.call(ctx, agent.Call{Stat: name}, nil, nil)
	return reply.Stat, err
}

// Reset ends what a step left behind outside the image.
func (g *Guest) Reset(ctx context.Context) error {
	_, err := g.call(ctx, agent.Call{Reset: true}, nil, nil)
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
}

// tail keeps the last lines that systemd-nspawn prints.
type tail struct {
	mu    sync.Mutex
	lines []string
	r     *os.File
	done  chan struct{}
}

func newTail() *tail { return &tail{done: make(chan struct{})} }

func (t *tail) open() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	t.r = r
	go func() {
		defer close(t.done)
		for s := bufio.NewScanner(r); s.Scan(); {
			t.mu.Lock()
			t.lines = append(t.lines, strings.TrimSpace(s.Text()))
			t.lines = t.lines[max(0, len(t.lines)-8):]
			t.mu.Unlock()
		}
	}()
	return w, nil
}

// text is what was said, once whoever says it is gone or has had its time.
func (t *tail) text() string {
	select {
	case <-t.done:
	case <-time.After(time.Second):
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "; ")
}

func (t *tail) close() {
	if t.r != nil {
		t.r.Close()
	}
}
