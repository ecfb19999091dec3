package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Words by which the binary is started for this package's work: to [Serve] in a
// guest, and by the agent itself as the [Stage] of a command.
const (
	Arg      = "agent"
	StageArg = "stage"
)

// Descriptors of a stage: what to run, and how it ended.
const (
	stageJob    = 3
	stageReport = 4
)

// job is what a stage runs.
type job struct {
	Argv []string
	Env  []string
	Dir  string
}

// report is how it ended.
type report struct {
	Error  string        `json:",omitempty"` // why it could not be started
	Errno  syscall.Errno `json:",omitempty"`
	Status *ExitStatus   `json:",omitempty"`
}

// Stage is process 1 of a command's own process ids: it shows them in /proc,
// runs the command, and reaps what is left to it. When it ends the kernel ends
// all others. Among them the agent is not: a command that may trace or stop
// whom it likes, as root may, cannot name it.
func Stage() error {
	if os.Getpid() != 1 {
		return errors.New("stage: this runs inside a guest only, started by the agent")
	}
	// What ends the command's session must not end this before the command has
	// had its time. Not ignored, because that the command would inherit.
	signal.Notify(make(chan os.Signal, 1), unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	r := stage()
	return json.NewEncoder(os.NewFile(stageReport, "report")).Encode(r)
}

func stage() (r report) {
	fail := func(err error) report {
		errors.As(err, &r.Errno)
		r.Error = err.Error()
		return r
	}
	unix.CloseOnExec(stageReport)
	var j job
	in := os.NewFile(stageJob, "job")
	if err := json.NewDecoder(in).Decode(&j); err != nil {
		return fail(fmt.Errorf("read job: %w", err))
	}
	in.Close()
	if err := mountProc(); err != nil {
		return fail(err)
	}
	cmd := exec.Command(j.Argv[0], j.Argv[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = j.Dir, j.Env, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fail(fmt.Errorf("wait: %w", err))
		}
		if pid != cmd.Process.Pid {
			continue // an orphan
		}
		r.Status = &ExitStatus{Code: ws.ExitStatus()}
		if ws.Signaled() {
			r.Status.Signal = unix.SignalName(ws.Signal())
		}
		return r
	}
}

// mountProc shows the process ids of this namespace, and the settings of the
// kernel read-only, as systemd-nspawn does.
func mountProc() error {
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount /proc/sys: %w", err)
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/proc/sys", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make /proc/sys read-only: %w", err)
	}
	return nil
}

// stageProcess is a stage as the agent sees it.
type stageProcess struct {
	cmd    *exec.Cmd
	output *os.File   // what the command prints
	report *os.File   // how it ended
	theirs []*os.File // the other ends
}

// newStage prepares a stage; the caller starts its cmd.
func newStage(j job) (_ *stageProcess, err error) {
	st := &stageProcess{cmd: exec.Command("/proc/self/exe", StageArg)}
	defer func() {
		if err != nil {
			st.close()
		}
	}()
	b, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	// A file, not a pipe: it is larger than a pipe holds, and the stage reads it
	// only when it has been started.
	fd, err := unix.MemfdCreate("job", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	in := os.NewFile(uintptr(fd), "job")
	st.theirs = append(st.theirs, in)
	if _, err := in.Write(b); err != nil {
		return nil, err
	}
	if _, err := in.Seek(0, 0); err != nil {
		return nil, err
	}
	var out, rep *os.File
	if st.output, out, err = os.Pipe(); err != nil {
		return nil, err
	}
	st.theirs = append(st.theirs, out)
	if st.report, rep, err = os.Pipe(); err != nil {
		return nil, err
	}
	st.theirs = append(st.theirs, rep)
	st.cmd.Dir = "/"
	st.cmd.Stdout, st.cmd.Stderr = out, out // one pipe, so that the order is kept
	st.cmd.ExtraFiles = []*os.File{in, rep}
	st.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWPID}
	return st, nil
}

// started lets go of what the stage has now.
func (st *stageProcess) started() {
	for _, f := range st.theirs {
		f.Close()
	}
}

func (st *stageProcess) close() {
	st.started()
	for _, f := range []*os.File{st.output, st.report} {
		if f != nil {
			f.Close() // Double Close is harmless.
		}
	}
}

// result is what a stage that has ended said of its command. It says nothing if
// it was killed.
func (st *stageProcess) result() (*ExitStatus, error) {
	var r report
	if err := json.NewDecoder(io.LimitReader(st.report, MaxData)).Decode(&r); err != nil {
		return nil, nil
	}
	if r.Error == "" {
		return r.Status, nil
	}
	if r.Errno != 0 {
		return nil, &stageError{r}
	}
	return nil, errors.New(r.Error)
}

// stageError is why a command could not be started, with its errno.
type stageError struct{ report }

func (e *stageError) Error() string { return e.report.Error }

func (e *stageError) Unwrap() error { return e.report.Errno }
