package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/thread"
)

// Descriptors of an init: what to run, how it ended, and the launcher's word.
const (
	initJob    = 3
	initReport = 4
	initWord   = 5
)

// job is what an init runs, and what it makes for it.
type job struct {
	Argv         []string
	Env          []string
	Dir          string
	Script       string
	Hostname     string
	Cmdline      string  // of the kernel, as /proc/cmdline shows it; the machine's own if empty
	Capabilities uint64  // the most it can ever have, a bit each
	Network      bool    // it has the network, and not one of its own
	Files        []Cover // in one of the fresh filesystems
	Binds        []Cover // over a file that nobody can change
}

// report is how it ended.
type report struct {
	Error  string        `json:",omitempty"` // why it could not be started
	Errno  syscall.Errno `json:",omitempty"`
	Status *ExitStatus   `json:",omitempty"`
}

// maxError bounds the text of an error, in bytes: a report has to fit into a pipe,
// because it is read when init has ended.
const maxError = 4 << 10

func (r *report) fail(err error) {
	errors.As(err, &r.Errno)
	r.Error = err.Error()
	r.Error = r.Error[:min(len(r.Error), maxError)]
}

// Init is process 1 of a command's own process ids: it shows them in /proc,
// runs the command, and reaps what is left to it. When it ends the kernel ends
// all others. It has no more rights than the command, so it does no harm that the
// command, as root, can control it.
func Init() error {
	// What a thread has is what its children get, and /proc/1 shows what the main
	// thread has.
	runtime.LockOSThread()
	if os.Getpid() != 1 {
		return errors.New("start init: this runs inside a guest only, started by the agent")
	}
	if unix.Gettid() != 1 { // it came to another thread first
		return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	// What ends the command's session must not end this before the command has
	// had its time. Not ignored, because that the command would inherit.
	signal.Notify(make(chan os.Signal, 1), unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	status, err := runJob()
	r := report{Status: status}
	if err != nil {
		r.fail(err)
	}
	return json.NewEncoder(os.NewFile(initReport, "report")).Encode(r)
}

func runJob() (*ExitStatus, error) {
	var j job
	in := os.NewFile(initJob, "job")
	if err := json.NewDecoder(in).Decode(&j); err != nil {
		return nil, fmt.Errorf("read job: %w", err)
	}
	in.Close()
	if err := enterMounts(); err != nil {
		return nil, err
	}
	if err := j.showKernel(); err != nil {
		return nil, err
	}
	if err := j.makeFiles(); err != nil {
		return nil, err
	}
	if err := unix.Sethostname([]byte(j.Hostname)); err != nil {
		return nil, fmt.Errorf("set host name: %w", err)
	}
	if !j.Network {
		if err := loopbackUp(); err != nil {
			return nil, err
		}
	}
	if err := j.giveUp(); err != nil {
		return nil, err
	}
	if err := filterCalls(); err != nil {
		return nil, err
	}
	cmd, err := j.command()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, inTheWay(j.Argv[0]))
	}
	return reap(cmd.Process.Pid)
}

// command is the program of the job. It is looked for where the PATH of the job says, as a
// shell does with a variable before a command. That of init says nothing: it may have
// none.
func (j *job) command() (*exec.Cmd, error) {
	for _, e := range j.Env {
		if path, ok := strings.CutPrefix(e, "PATH="); ok { // the last counts
			if err := os.Setenv("PATH", path); err != nil {
				return nil, err
			}
		}
	}
	cmd := exec.Command(j.Argv[0], j.Argv[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = j.Dir, j.Env, os.Stdout, os.Stderr
	return cmd, nil
}

// inTheWay says what, other than that it is not there, keeps a program from being found:
// [exec.LookPath] passes over a directory that cannot be read, and tells nothing of it.
func inTheWay(program string) error {
	if strings.Contains(program, "/") {
		return nil
	}
	var errs []error
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		file := filepath.Join(dir, program)
		_, err := os.Stat(file)
		if err == nil {
			err = unix.Access(file, unix.X_OK)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			errs = append(errs, fmt.Errorf("look for %s: %w", file, err))
		}
	}
	return errors.Join(errs...)
}

// reap waits for the command, and for orphans meanwhile.
func reap(command int) (*ExitStatus, error) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("wait: %w", err)
		}
		if pid != command {
			continue
		}
		s := &ExitStatus{Code: ws.ExitStatus()}
		if ws.Signaled() {
			s.Signal = unix.SignalName(ws.Signal())
		}
		return s, nil
	}
}

// enterMounts gives the main thread a mount namespace that belongs to this
// user namespace, with a proc of these process ids and no other.
func enterMounts() error {
	word := os.NewFile(initWord, "launcher")
	defer word.Close()
	var proc *os.File
	var err error
	thread.Own(func() {
		if err = unix.Unshare(unix.CLONE_NEWNS); err == nil {
			proc, err = newKernelFS("proc", 0)
		}
	})
	if err != nil {
		return err
	}
	defer proc.Close()
	// Now the launcher unmounts the guest's proc.
	if err := errors.Join(speak(word), hear(word)); err != nil {
		return fmt.Errorf("wait for the launcher: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	return attach(proc, "/proc")
}

// showKernel shows the settings of the kernel read-only, as systemd-nspawn does,
// and the image's command line.
func (j *job) showKernel() error {
	if err := unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount /proc/sys: %w", err)
	}
	err := unix.MountSetattr(unix.AT_FDCWD, "/proc/sys", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if err != nil {
		return fmt.Errorf("make /proc/sys read-only: %w", err)
	}
	if err := unix.Mount("mqueue", "/dev/mqueue", "mqueue", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /dev/mqueue: %w", err)
	}
	if j.Cmdline == "" {
		return nil
	}
	// Programs of such a system ask by it what it is: its initrd makes it, where the command
	// line says so (ostree-prepare-root(1)).
	if slices.ContainsFunc(strings.Fields(j.Cmdline), func(word string) bool { return strings.HasPrefix(word, "ostree=") }) {
		if err := os.WriteFile("/run/ostree-booted", nil, 0o644); err != nil {
			return err
		}
	}
	return bindOver(Cover{Path: "/proc/cmdline", Content: j.Cmdline + "\n", Mode: 0o444})
}

// makeFiles writes the script and what the command is to see in files.
func (j *job) makeFiles() error {
	if j.Script != "" {
		if err := os.Mkdir(workDir, 0o711); err != nil { // scripts in it run as any user
			return err
		}
		if err := os.WriteFile(scriptFile, []byte(j.Script), 0o755); err != nil {
			return err
		}
	}
	for _, c := range j.Files {
		err := os.MkdirAll(filepath.Dir(c.Path), 0o755)
		if err == nil {
			err = write(c.Path, c)
		}
		if err != nil {
			return fmt.Errorf("cover %s: %w", c.Path, err)
		}
	}
	for _, c := range j.Binds {
		if err := bindOver(c); err != nil {
			return fmt.Errorf("cover %s: %w", c.Path, err)
		}
	}
	return nil
}

// bindOver mounts a file over another.
func bindOver(c Cover) error {
	const name = "/run/.imgmut-cover"
	if err := write(name, c); err != nil {
		return err
	}
	if err := unix.Mount(name, c.Path, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return os.Remove(name) // the mount keeps it
}

func write(name string, c Cover) error {
	if err := os.WriteFile(name, []byte(c.Content), 0o600); err != nil {
		return err
	}
	return os.Chmod(name, fs.FileMode(c.Mode))
}

// giveUp gives up what a command is not to have.
func (j *job) giveUp() error {
	// A new user namespace has all capabilities, over what belongs to it. Those
	// that the guest itself lacks would surprise, as a reboot that ends the step.
	for c := uintptr(0); c < 64; c++ {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil {
			break // there are no more
		}
		if has == 1 && j.Capabilities>>c&1 == 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
				return fmt.Errorf("drop capability %d: %w", c, err)
			}
		}
	}
	// Have a session keyring of its own, not one with another command's keys. In
	// most guests systemd-nspawn forbids the call.
	unix.KeyctlJoinSessionKeyring("")
	// Where memory is short, the kernel is to end a command and not the agent.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("300"), 0); err != nil {
		return err
	}
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	return nil
}
