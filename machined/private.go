package machined

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// startTimeout bounds the start of a private host, which takes about 0.2 s.
const startTimeout = 10 * time.Second

// private is a private host's PID 1 as its parent sees it.
type private struct {
	cmd     *exec.Cmd
	cgroup  *cgroup
	console *console
	journal *os.File
	exited  chan struct{} // closed once PID 1, and so its whole namespace, is gone
}

// startPrivate starts a private host and returns once its units are up, or
// failed. On error nothing is left of it.
func startPrivate(ctx context.Context, o Options) (_ *private, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout,
		fmt.Errorf("not ready after %v: %w", startTimeout, context.DeadlineExceeded))
	defer cancel()
	p := &private{exited: make(chan struct{})}
	if p.cgroup, err = newCgroup(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = p.fail(err)
		}
	}()
	if p.console, err = openConsole(o.Log); err != nil {
		return nil, err
	}
	if p.journal, err = newJournal(); err != nil {
		return nil, err
	}
	ready, err := listenReady()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	if err := p.spawn(slices.Concat(o.Init, o.Paths), ready.address); err != nil {
		return nil, fmt.Errorf("start process 1: %w", err)
	}
	answer := make(chan error, 1)
	go func() { answer <- ready.wait(p.cmd.Process.Pid) }()
	select {
	case err = <-answer:
	case <-p.exited:
		err = fmt.Errorf("process 1 ended: %v", p.cmd.ProcessState)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return p, err
}

// spawn starts PID 1 in its namespaces and cgroup, with the console's other
// end for standard error.
func (p *private) spawn(argv []string, notify string) error {
	p.cmd = &exec.Cmd{
		Path: argv[0],
		Args: argv,
		// The whole environment, on purpose: what is set where imgmut was
		// called must not change what PID 1 does.
		Env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"LC_ALL=C",
			"container=imgmut", // tells systemd to leave the machine's hardware alone
			"NOTIFY_SOCKET=" + notify,
			"SYSTEMD_UNIT_PATH=" + insideUnits,
			// Generators would run the machine's own programs.
			"SYSTEMD_GENERATOR_PATH=" + insideEmpty,
			"SYSTEMD_ENVIRONMENT_GENERATOR_PATH=" + insideEmpty,
		},
		Dir:        "/",
		Stderr:     p.console.slave,
		ExtraFiles: []*os.File{p.journal}, // journalFD
		SysProcAttr: &unix.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
			Pdeathsig:   unix.SIGKILL,
			Setsid:      true, // no ^C from our terminal
			UseCgroupFD: true,
			CgroupFD:    int(p.cgroup.dir.Fd()),
		},
	}
	started := make(chan error)
	go func() {
		// The parent-death signal is sent when the *thread* that started the
		// child ends. This one is never unlocked, so it outlives the child.
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // told by ProcessState
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	// Handing it to the child made it blocking.
	journal, err := pollable(p.journal)
	if err != nil {
		return err
	}
	_ = p.journal.Close()
	p.journal = journal
	go readJournal(journal, p.console.slave)
	return nil
}

// kill ends every process of the host and removes its cgroup. Once PID 1 has
// been reaped, the kernel has killed and reaped the rest of its namespace.
func (p *private) kill() error {
	if p.cmd != nil && p.cmd.Process != nil {
		_ = p.cmd.Process.Kill() // already dead is fine
		<-p.exited
	}
	if p.journal != nil {
		_ = p.journal.Close() // twice is harmless
	}
	if p.console != nil {
		p.console.drain()
	}
	return p.cgroup.remove()
}

// fail kills the host and returns err with the last lines that it logged.
func (p *private) fail(err error) error {
	killErr := p.kill()
	if p.console != nil && len(p.console.last) > 0 {
		err = fmt.Errorf("%w; its log ends:\n%s", err, strings.Join(p.console.last, "\n"))
	}
	return errors.Join(err, killErr)
}

// readySocket receives sd_notify(3) messages. PID 1 of a container sends
// READY=1 when it has no start job left, successful or not.
//
// The address is abstract: a path would have to survive the new /run. Such a
// socket is open to everyone on the machine, so the sender's process id counts.
type readySocket struct {
	*net.UnixConn
	address string
}

func listenReady() (*readySocket, error) {
	address := "@imgmut-" + rand.Text()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var option error
		err = raw.Control(func(fd uintptr) {
			option = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		})
		err = errors.Join(err, option)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("listen for readiness: %w", err)
	}
	return &readySocket{conn, address}, nil
}

// wait returns nil when the process pid says that it is ready, and an error
// when the socket is closed.
func (s *readySocket) wait(pid int) error {
	data, oob := make([]byte, 4096), make([]byte, 256)
	for {
		n, oobn, _, _, err := s.ReadMsgUnix(data, oob)
		if err != nil {
			return fmt.Errorf("wait for readiness: %w", err)
		}
		if senderPID(oob[:oobn]) != pid {
			continue
		}
		for line := range strings.Lines(string(data[:n])) {
			if strings.TrimSpace(line) == "READY=1" {
				return nil
			}
		}
	}
}

// senderPID returns the kernel's word on who sent a message, 0 if unknown.
func senderPID(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for i := range messages {
		if cred, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			return int(cred.Pid)
		}
	}
	return 0
}
