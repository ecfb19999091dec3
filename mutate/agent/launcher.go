package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/thread"
)

// Words by which the binary is started for this package's work: by
// systemd-nspawn to [Launch], by the launcher to [Serve], and by the launcher
// as the [Init] of each command.
const (
	Arg      = "agent"
	ServeArg = "agent-serve"
	InitArg  = "agent-init"
)

// maxTasks bounds the processes and threads of a command. It is half of what
// the unit of a guest may have, so that a command which makes them without end
// leaves enough to end it.
const maxTasks = 8192

// Launch is process 2 of a guest. It starts the agent in a network namespace of
// its own, and what the agent asks it to start: only here is the machine's
// network, if the guest has it at all. It returns when the agent has ended, and
// all else in the guest ends with it.
func Launch() error {
	if os.Getpid() != 2 {
		return errors.New("launch agent: this runs inside a guest only, started by imgmut")
	}
	unix.Umask(0o022)
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	ours, theirs, err := socketPair("launcher")
	if err != nil {
		return err
	}
	l := &launcher{requests: ours}
	if l.uids, err = identityMap("/proc/self/uid_map"); err != nil {
		return err
	}
	if l.gids, err = identityMap("/proc/self/gid_map"); err != nil {
		return err
	}
	if len(l.uids) == 1 && l.uids[0].Size == math.MaxUint32 { // what follows would be done to the machine
		return errors.New("launch agent: the guest is in the machine's user namespace")
	}
	if err := prepareGuest(); err != nil {
		return fmt.Errorf("prepare the guest: %w", err)
	}
	agent := exec.Command("/proc/self/exe", ServeArg)
	agent.Stdin, agent.Stdout, agent.Stderr = os.Stdin, os.Stdout, os.Stderr
	agent.ExtraFiles = []*os.File{theirs}
	agent.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := agent.Start(); err != nil {
		return err
	}
	theirs.Close()
	if err := speakToNobody(); err != nil {
		return err
	}
	go l.serve()
	return agent.Wait()
}

// speakToNobody closes the launcher's copies of the descriptors by which agent and
// host speak: each must see when the other is gone.
func speakToNobody() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	return errors.Join(unix.Dup3(int(null.Fd()), 0, 0), unix.Dup3(int(null.Fd()), 1, 0))
}

// launcher starts commands for the agent.
type launcher struct {
	requests   *os.File
	uids, gids []syscall.SysProcIDMap // of the commands' user namespaces
}

// launch asks to start a command. With it come descriptors: its job, where its
// output goes, and where its init reports how it ended.
type launch struct {
	Network bool
	Timeout time.Duration
	Lend    Lend
}

// launched answers when the command, and all it started, is gone.
type launched struct {
	Error  string        `json:",omitempty"`
	Errno  syscall.Errno `json:",omitempty"`
	Status *ExitStatus   // of its init
}

// serve answers until the agent is gone, or does not keep to the protocol.
func (l *launcher) serve() {
	defer l.requests.Close()
	for {
		var req launch
		files, err := receiveMessage(l.requests, &req)
		if err != nil || len(files) != 3 {
			return
		}
		var answer launched
		answer.Status, err = l.run(req, files)
		if err != nil {
			answer.Error = err.Error()
			errors.As(err, &answer.Errno)
		}
		if err := sendMessage(l.requests, answer); err != nil {
			return
		}
	}
}

// run runs a command in namespaces of its own.
func (l *launcher) run(req launch, files []*os.File) (*ExitStatus, error) {
	defer closeAll(files) // the agent waits for the end of the output
	word, theirs, err := socketPair("init")
	if err != nil {
		return nil, err
	}
	defer word.Close()
	output := files[1]
	cmd := exec.Command("/proc/self/exe", InitArg)
	cmd.Dir, cmd.Env = "/", environment // its own would say that it is in a container
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = []*os.File{files[0], files[2], theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:      true,
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		UidMappings: l.uids, GidMappings: l.gids, GidMappingsEnableSetgroups: true,
	}
	if !req.Network {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWNET
	}
	thread.Own(func() { err = startInNamespaces(cmd, req.Lend, word, theirs) })
	if err != nil {
		return nil, err
	}
	closeAll(files)
	return wait(cmd, req.Timeout), nil
}

// startInNamespaces starts an init in a mount namespace in which nothing is
// that a command may not see. The calling thread stays in that namespace.
func startInNamespaces(cmd *exec.Cmd, l Lend, word, theirs *os.File) error {
	if err := makeMounts(l); err != nil {
		theirs.Close()
		return err
	}
	err := startLimited(cmd)
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start in namespaces of its own (are user namespaces restricted? imgmut doctor tells): %w", err)
	}
	// In a user namespace the kernel lets a process mount proc only if it sees
	// another one. So init mounts its own while it sees the guest's. Then that is
	// unmounted here, and init takes a copy of this mount namespace, which has no
	// proc but init's.
	err = hear(word)
	if err == nil {
		err = unix.Unmount("/proc", unix.MNT_DETACH)
	}
	if err == nil {
		err = speak(word)
	}
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return fmt.Errorf("start in namespaces of its own: %w", err)
	}
	return nil
}

// startLimited starts a program with a user namespace that has room for
// maxTasks. The kernel takes that from the limit of the process that makes it.
func startLimited(cmd *exec.Cmd) error {
	var was unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NPROC, nil, &was); err != nil {
		return err
	}
	limited := unix.Rlimit{Cur: min(was.Cur, maxTasks), Max: was.Max}
	if err := unix.Prlimit(0, unix.RLIMIT_NPROC, &limited, nil); err != nil {
		return err
	}
	return errors.Join(cmd.Start(), unix.Prlimit(0, unix.RLIMIT_NPROC, &was, nil))
}

// wait waits for an init, ends it when its time is up, and tells how it ended.
// With it all that it left running has ended.
func wait(cmd *exec.Cmd, timeout time.Duration) *ExitStatus {
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
	}
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	status.Code = ws.ExitStatus()
	if ws.Signaled() {
		status.Signal = unix.SignalName(ws.Signal())
	}
	return status
}

// end asks the command's session to end, and soon makes it.
func end(cmd *exec.Cmd, done <-chan struct{}) {
	unix.Kill(-cmd.Process.Pid, unix.SIGTERM)
	select {
	case <-done:
	case <-time.After(2 * time.Second):
		cmd.Process.Kill()
		<-done
	}
}

// identityMap gives the map of a user namespace in which every id of this one
// has its own number.
func identityMap(file string) (ids []syscall.SysProcIDMap, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line) // here, outside, how many (user_namespaces(7))
		if len(f) != 3 {
			return nil, fmt.Errorf("read %s: line %q", file, line)
		}
		first, err := strconv.Atoi(f[0])
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil {
			return nil, err
		}
		ids = append(ids, syscall.SysProcIDMap{ContainerID: first, HostID: first, Size: int(n)})
	}
	return ids, nil
}

// socketPair makes a socket whose two ends exchange whole messages.
func socketPair(name string) (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}

// sendMessage sends v, and files with it.
func sendMessage(s *os.File, v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	return unix.Sendmsg(int(s.Fd()), b, unix.UnixRights(fds...), nil, 0)
}

// receiveMessage receives v, and the files that came with it.
func receiveMessage(s *os.File, v any) ([]*os.File, error) {
	b, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(8*4))
	var n, oobn int
	err := error(unix.EINTR)
	for err == unix.EINTR {
		n, oobn, _, _, err = unix.Recvmsg(int(s.Fd()), b, oob, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, os.ErrClosed
	}
	var files []*os.File
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "from the agent"))
		}
	}
	return files, json.Unmarshal(b[:n], v)
}

// speak and hear pass one byte between the launcher and an init, by which one
// tells the other that it may go on.
func speak(s *os.File) error { return sendMessage(s, true) }

func hear(s *os.File) error {
	var word bool
	_, err := receiveMessage(s, &word)
	return err
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close() // Double Close is harmless.
	}
}
