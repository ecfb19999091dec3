package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/printable"
)

// environment is what every command starts from. It is the same for every
// step and host, because no key knows of it.
var environment = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME=/root", "USER=root", "LOGNAME=root", "LANG=C.UTF-8", "TERM=dumb",
}

// run runs a program in namespaces of its own and waits until it, and all it
// started, is gone.
func (s *server) run(ctx context.Context, c *RunCall) (*ExitStatus, error) {
	argv, err := arguments(c)
	if err != nil {
		return nil, err
	}
	j := job{
		Argv: argv, Env: append(environment, c.Env...), Dir: c.Dir, Script: c.Script,
		Hostname: hostname(), Cmdline: c.Cmdline, Network: c.Network,
	}
	if j.Dir == "" {
		j.Dir = "/"
	}
	if j.Capabilities, err = boundingSet(); err != nil {
		return nil, err
	}
	covers := c.Covers
	if c.Network && c.Resolv != "" {
		covers = append(covers, Cover{Path: "/etc/resolv.conf", Content: c.Resolv, Mode: 0o644})
	}
	var put covering
	for _, c := range covers {
		if err := put.cover(c, &j); err != nil {
			return nil, errors.Join(fmt.Errorf("cover %s: %w", c.Path, err), put.restore())
		}
	}
	status, err := s.runJob(ctx, j, launch{Network: c.Network, Timeout: c.Timeout, Lend: c.Lend})
	return status, errors.Join(err, put.restore())
}

// scriptFile is where the script of a call is for the program that runs it.
const scriptFile = workDir + "/script"

// arguments gives the program of a call.
func arguments(c *RunCall) ([]string, error) {
	if c.Script == "" {
		if len(c.Argv) == 0 {
			return nil, ErrProtocol
		}
		return c.Argv, nil
	}
	if strings.HasPrefix(c.Script, "#!") {
		return []string{scriptFile}, nil
	}
	return []string{"/bin/sh", "-e", scriptFile}, nil
}

// boundingSet gives the capabilities that can be had in this guest at all.
func boundingSet() (set uint64, err error) {
	for c := range uintptr(64) {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err == unix.EINVAL {
			break // there are no more
		}
		if err != nil {
			return 0, fmt.Errorf("read capabilities: %w", err)
		}
		set |= uint64(has) << c
	}
	return set, nil
}

// errHostGone says that nobody waits for an answer any more.
var errHostGone = errors.New("the host is gone")

// runJob has the launcher run a job, and passes its output on.
func (s *server) runJob(ctx context.Context, j job, req launch) (*ExitStatus, error) {
	in, err := jobFile(j)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	output, theirOutput, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer output.Close()
	said, theirReport, err := os.Pipe()
	if err != nil {
		theirOutput.Close()
		return nil, err
	}
	defer said.Close()
	err = sendMessage(s.launcher, req, in, theirOutput, theirReport)
	theirOutput.Close()
	theirReport.Close()
	if err != nil {
		return nil, fmt.Errorf("ask the launcher: %w", err)
	}
	copied := make(chan error, 1)
	go func() { copied <- s.output(output) }()
	ended := make(chan error, 1)
	var answer launched
	go func() {
		_, err := receiveMessage(s.launcher, &answer)
		ended <- err
	}()
	select {
	case err = <-ended:
	case <-ctx.Done():
		return nil, errHostGone // and so is the guest with all that runs, in a moment
	}
	// All processes of the command are gone, but not all who may hold the other end:
	// one that has the network can have handed it to somebody else on the machine.
	output.SetReadDeadline(time.Now())
	err = errors.Join(err, <-copied)
	if err == nil {
		err = s.output(pending(output))
	}
	switch {
	case err != nil:
		return nil, err
	case answer.Error != "":
		return nil, &initError{report{Error: answer.Error, Errno: answer.Errno}}
	case answer.Status == nil:
		return nil, fmt.Errorf("answer of the launcher: %w", ErrProtocol)
	case answer.Status.TimedOut:
		return answer.Status, nil
	}
	ran, err := readReport(pending(said))
	if ran == nil && err == nil {
		return answer.Status, nil // init was killed, and its own status is all there is
	}
	return ran, err
}

// jobFile gives a file with a job. A pipe does not hold as much, and is read
// only when the init has been started.
func jobFile(j job) (*os.File, error) {
	b, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("job", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "job")
	if _, err = f.Write(b); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readReport reads what an init that has ended said of its command. It says
// nothing if it was killed. The command can have it say what it likes: that is
// about the command, and no more than text.
func readReport(said io.Reader) (*ExitStatus, error) {
	var r report
	if err := json.NewDecoder(io.LimitReader(said, MaxData)).Decode(&r); err != nil {
		return nil, nil
	}
	if r.Error != "" {
		r.Error = printable.Line(r.Error)
		return nil, &initError{r}
	}
	if r.Status != nil {
		r.Status.Signal = printable.Line(r.Status.Signal)
		r.Status.TimedOut = false // only the launcher knows
	}
	return r.Status, nil
}

// initError is why a command could not be started.
type initError struct{ report }

func (e *initError) Error() string { return e.report.Error }

// Unwrap gives the errno, if there is one.
func (e *initError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// output sends what the program prints, in pieces as it prints them, until there
// is no more or r has a deadline.
func (s *server) output(r io.Reader) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := WriteFrame(s.out, Output, buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read output: %w", err)
		}
	}
}

// pending gives what is in a pipe now, and waits for no more.
func pending(pipe *os.File) io.Reader {
	p := pipeReader{pipe}
	n := 0 // as it stays if that cannot be told
	p.control(func(fd int) (err error) {
		n, err = unix.IoctlGetInt(fd, unix.TIOCINQ) // FIONREAD by another name
		return err
	})
	return io.LimitReader(p, int64(n))
}

// pipeReader reads from a pipe that does not block, and ends where it is empty.
type pipeReader struct{ pipe *os.File }

func (p pipeReader) Read(b []byte) (n int, err error) {
	err = p.control(func(fd int) (err error) { n, err = unix.Read(fd, b); return err })
	if n == 0 && err == nil || err == unix.EAGAIN {
		err = io.EOF
	}
	return max(n, 0), err
}

func (p pipeReader) control(f func(fd int) error) error {
	raw, err := p.pipe.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return cmp.Or(err, failed)
}
