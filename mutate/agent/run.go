package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// environment is what every command starts from. It is the same for every
// step and host, because no key knows of it.
var environment = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME=/root", "USER=root", "LOGNAME=root", "LANG=C.UTF-8", "TERM=dumb",
}

// run runs a program in a world of its own and waits until it, and all it
// started, is gone.
func (s *server) run(ctx context.Context, c *RunCall) (*ExitStatus, error) {
	argv, err := arguments(c)
	if err != nil {
		return nil, err
	}
	dir := c.Dir
	if dir == "" {
		dir = "/"
	}
	st, err := newStage(job{argv, append(environment, c.Env...), dir})
	if err != nil {
		return nil, err
	}
	defer st.close()
	undo, err := startApart(st.cmd, c)
	st.started()
	if err != nil {
		return nil, err
	}
	copied := make(chan error, 1)
	go func() { copied <- s.output(st.output) }()
	status := wait(ctx, st.cmd, c.Timeout)
	// With the stage all that it left running has ended, if it has ended.
	if err = killAll(); err != nil {
		st.output.Close() // or what does not die could keep us here
	}
	err = errors.Join(err, <-copied, undo())
	if status.TimedOut {
		return status, err
	}
	ran, notStarted := st.result()
	if notStarted != nil {
		return nil, errors.Join(err, notStarted)
	}
	if ran != nil { // else the stage was killed, and its own status is all there is
		status = ran
	}
	return status, err
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

// startApart starts cmd in a world of its own. That is made on a thread that is
// never used again, because a thread cannot go back. It ends with the
// goroutine, and with it what holds the namespaces, unless it is the main
// thread: that would stay in them, for later steps to find below /proc.
func startApart(cmd *exec.Cmd, c *RunCall) (undo func() error, err error) {
	covers := c.Covers
	if c.Network && c.Resolv != "" {
		covers = append(covers, Cover{Path: "/etc/resolv.conf", Content: c.Resolv, Mode: 0o644})
	}
	done := make(chan struct{})
	var start func()
	start = func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		if unix.Gettid() == os.Getpid() {
			defer runtime.UnlockOSThread()
			go start() // on another: this one is taken until that is done
			<-done
			return
		}
		defer close(done)
		if undo, err = leaveWorld(c, covers); err != nil {
			return
		}
		if err = cmd.Start(); err != nil {
			err = errors.Join(err, undo())
		}
	}
	go start()
	<-done
	return undo, err
}

// wait waits for the program, ends it when its time is up or the host is
// gone, and tells how it ended.
func wait(ctx context.Context, cmd *exec.Cmd, timeout time.Duration) *ExitStatus {
	done := make(chan struct{})
	go func() { defer close(done); cmd.Wait() }()
	var expired <-chan time.Time
	if timeout > 0 {
		expired = time.After(timeout)
	}
	status := new(ExitStatus)
	select {
	case <-done:
	case <-expired:
		status.TimedOut = true
		end(cmd, done)
	case <-ctx.Done():
		end(cmd, done)
	}
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	status.Code = ws.ExitStatus()
	if ws.Signaled() {
		status.Signal = unix.SignalName(ws.Signal())
	}
	return status
}

// end asks the program's session to end, and soon makes it.
func end(cmd *exec.Cmd, done <-chan struct{}) {
	unix.Kill(-cmd.Process.Pid, unix.SIGTERM)
	select {
	case <-done:
	case <-time.After(2 * time.Second):
		killAll()
		<-done
	}
}

// output sends what the program prints, in pieces as it prints them.
func (s *server) output(r io.Reader) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := WriteFrame(s.out, Output, buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read output: %w", err)
		}
	}
}
