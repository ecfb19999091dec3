package guest

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/imgmut/imgmut/mutate/agent"
)

// abandon ends reading from and writing to the agent when the context ends,
// for good: there is no way to stop what the agent does but to end the guest.
func (g *Guest) abandon(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		g.outFile.SetReadDeadline(time.Now())
		g.in.SetWriteDeadline(time.Now())
	})
}

// receive reads a frame.
func (g *Guest) receive(ctx context.Context) (kind byte, payload []byte, err error) {
	kind, payload, err = agent.ReadFrame(g.out)
	if err != nil {
		return 0, nil, g.broken(ctx, err)
	}
	return kind, payload, nil
}

// broken is why the agent could not be spoken to.
func (g *Guest) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return g.lost(err)
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
func (g *Guest) call(
	ctx context.Context, c agent.Call, send func(io.Writer) error, data func([]byte),
) (agent.Reply, error) {
	var reply agent.Reply
	defer g.abandon(ctx)()
	if err := agent.WriteJSON(g.in, agent.Request, c); errors.Is(err, agent.ErrProtocol) {
		return reply, err // too large: nothing was sent
	} else if err != nil {
		return reply, g.broken(ctx, err)
	}
	if send != nil {
		if err := send(frames{g.in}); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return reply, err
		}
		if err := agent.WriteFrame(g.in, agent.End, nil); err != nil {
			return reply, g.broken(ctx, err)
		}
	}
	for {
		kind, payload, err := g.receive(ctx)
		if err != nil {
			return reply, err
		}
		switch kind {
		case agent.Output, agent.Data:
			if data == nil { // it was asked for none
				return reply, fmt.Errorf("frame %q as an answer: %w", kind, agent.ErrProtocol)
			}
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
	for piece := range slices.Chunk(b, agent.MaxData) {
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
	return &agent.GuestError{Text: r.Error, Errno: r.Errno}
}

// grace is how much longer than a command's own timeout the host waits.
const grace = 15 * time.Second

// maxFile is the most that is taken of a file, in bytes. The agent keeps to
// less; what answers in its place may not.
const maxFile = 80 << 20

// Exec runs a command and gives its output to out as it comes; a
// [agent.ExitError] if it did not succeed.
func (g *Guest) Exec(ctx context.Context, c agent.Command, network bool, out func([]byte)) error {
	call := &agent.RunCall{
		Argv: c.Argv, Script: c.Script, Dir: c.Dir, Timeout: c.Timeout, Network: network, Covers: c.Covers,
		Cmdline: g.Cmdline, Lend: c.Lend,
	}
	if network && !g.network {
		return errors.New("the guest was started without the network that this command needs")
	}
	if network {
		call.Resolv = g.resolv
	}
	for _, k := range slices.Sorted(maps.Keys(c.Env)) {
		call.Env = append(call.Env, k+"="+c.Env[k])
	}
	if c.Timeout > 0 {
		// The agent keeps the time; this is for one that a step has stopped.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Timeout+grace,
			fmt.Errorf("the guest does not answer %s after the command's time was up", grace))
		defer cancel()
	}
	reply, err := g.call(ctx, agent.Call{Run: call}, nil, out)
	if err != nil {
		return err
	}
	if reply.Exit == nil {
		return fmt.Errorf("result of a command without its exit status: %w", agent.ErrProtocol)
	}
	return exitError(c, reply.Exit)
}

func exitError(c agent.Command, s *agent.ExitStatus) error {
	e := &agent.ExitError{Command: cmp.Or(c.Title, "script"), Code: s.Code}
	if len(c.Argv) > 0 && c.Title == "" {
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

// Put unpacks a tar stream in the guest; see step.Guest.
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
	_, err := g.call(ctx, agent.Call{Read: name}, nil, func(p []byte) {
		if b.Len() < maxFile {
			b.Write(p)
		}
	})
	return b.Bytes(), err
}

// Stat describes a file of the guest, without following a link.
func (g *Guest) Stat(ctx context.Context, name string) (*agent.Stat, error) {
	reply, err := g.call(ctx, agent.Call{Stat: name}, nil, nil)
	if err == nil && reply.Stat == nil {
		err = fmt.Errorf("stat %s: no answer: %w", name, agent.ErrProtocol)
	}
	return reply.Stat, err
}
