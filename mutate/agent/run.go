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
	covers := c.Covers
	if c.Network && c.Resolv != "" {
		covers = append(covers, Cover{Path: "/etc/resolv.conf", Content: c.Resolv, Mode: 0o644})
	}
	undo, err := placeholders(covers)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, undo())
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = "/", append(environment, c.Env...)
	if c.Dir != "" {
		cmd.Dir = c.Dir
	}
	cmd.Stdout, cmd.Stderr = w, w // one pipe, so that the order is kept
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := startApart(cmd, covers, c.Network); err != nil {
		return nil, errors.Join(err, w.Close(), r.Close(), undo())
	}
	w.Close()
	copied := make(chan error, 1)
	go func() { copied <- s.output(r) }()
	status := wait(ctx, cmd, c.Timeout)
	// What it left running holds the pipe open and the filesystem busy.
	if err = killAll(); err != nil {
		r.Close() // or what does not die could keep us here
	}
	err = errors.Join(err, <-copied, undo())
	r.Close() // Double Close is harmless.
	return status, err
}

// arguments gives the program of a call; a script becomes a file first.
func arguments(c *RunCall) ([]string, error) {
	if c.Script == "" {
		if len(c.Argv) == 0 {
			return nil, ErrProtocol
		}
		return c.Argv, nil
	}
	name := workDir + "/script"
	if err := os.WriteFile(name, []byte(c.Script), 0o755); err != nil {
		return nil, err
	}
	if strings.HasPrefix(c.Script, "#!") {
		return []string{name}, nil
	}
	return []string{"/bin/sh", "-e", name}, nil
}

// startApart starts cmd in namespaces of its own. They are made on a thread
// that is never used again, because a thread cannot go back. It ends with the
// goroutine, and with it what holds the namespaces, unless it is the main
// thread: that would stay in them, for later steps to find below /proc.
func startApart(cmd *exec.Cmd, covers []Cover, network bool) error {
	started := make(chan error, 1)
	var start func()
	start = func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		if unix.Gettid() == os.Getpid() {
			defer runtime.UnlockOSThread()
			next := make(chan struct{})
			go func() { defer close(next); start() }() // on another: this one is taken
			<-next
			return
		}
		err := leaveWorld(covers, network)
		if err == nil {
			err = cmd.Start()
		}
		started <- err
	}
	go start()
	return <-started
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
