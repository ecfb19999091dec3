// Package tool runs programs of the host: blkid, mkfs.xfs, the checkers of
// filesystems. Each is maintained by the authors of its filesystem, and
// may be missing, or print in the user's language.
//
// All of them are in one list (programs.go), which imgmut doctor prints, and
// all run through [Run]: in the C locale, because imgmut reads what they print,
// and with one answer for a program that is not installed.
package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Call is one run of a program.
type Call struct {
	Program string   // its name in the list
	Args    []string // without the program's name
	// Through is a command that executes the program, whose path is its last word, in
	// place of which it is run: nil runs the program itself.
	Through []string
	What    string // what it is wanted for, as "check partition 2 (xfs)"
	Stdin   io.Reader
	Stdout  io.Writer  // gets what it prints, if that may be much; nil keeps the start of it
	Files   []*os.File // open in it as descriptors 3, 4, …
	Env     []string   // beside that of this process, or in its place: KEY=value
	Limits  Limits
}

// Limits are what a program may use that reads a stranger's bytes. Zero is no limit.
type Limits struct {
	Memory uint64 // bytes of addresses
	CPU    uint64 // seconds
}

// put limits a program that has just been started: before it has read anything, for
// that takes it longer.
func (l Limits) put(pid int) error {
	for resource, most := range map[int]uint64{unix.RLIMIT_AS: l.Memory, unix.RLIMIT_CPU: l.CPU} {
		if most == 0 {
			continue
		}
		if err := unix.Prlimit(pid, resource, &unix.Rlimit{Cur: most, Max: most}, nil); err != nil {
			return fmt.Errorf("limit what it may use: %w", err)
		}
	}
	return nil
}

// ExitError says that a program ran and ended with another status than 0.
type ExitError struct {
	What    string
	Program string
	Status  int    // exit status, -1 after a signal
	Report  string // what it printed, standard output first
	err     error
}

// maxSaid is how much of what a program printed an error says, in bytes.
const maxSaid = 2000

func (e *ExitError) Error() string {
	msg := fmt.Sprintf("%s: %s: %v", e.What, e.Program, e.err)
	said := strings.Join(strings.Fields(e.Report), " ")
	if len(said) > maxSaid {
		said = said[:maxSaid] + "..."
	}
	if said != "" {
		msg += ": " + said
	}
	return msg
}

// maxOutput is how much is kept of what a program prints on each of standard
// output and standard error, in bytes. What a checker finds in a damaged
// filesystem can be more than the memory of the machine.
const maxOutput = 1 << 20

// output keeps the start of what is written to it.
type output []byte

func (o *output) Write(b []byte) (int, error) {
	*o = append(*o, b[:min(len(b), maxOutput-len(*o))]...)
	return len(b), nil
}

// Run runs a program and gives what it printed on standard output, the first
// mebibyte of it. The error is an [*ExitError] if it ran and failed, one of class
// [fault.Host] if it is not installed, and the cause of the context if that ended.
func Run(ctx context.Context, c Call) ([]byte, error) {
	p := find(c.Program)
	argv := append(slices.Clone(c.Through), c.Args...)
	if len(c.Through) == 0 {
		argv = append([]string{c.Program}, c.Args...)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	// os/exec takes the last of two equal names.
	cmd.Env = append(append(os.Environ(), "LC_ALL=C", "LANGUAGE="), c.Env...)
	cmd.Stdin, cmd.ExtraFiles = c.Stdin, c.Files
	var out, said output
	cmd.Stdout, cmd.Stderr = &out, &said
	if c.Stdout != nil {
		cmd.Stdout = c.Stdout
	}
	// It ends with imgmut, however that ends. The kernel counts by the thread that has
	// started it, which is to stay.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	if err == nil {
		if err = c.Limits.put(cmd.Process.Pid); err != nil {
			_ = cmd.Process.Kill()
		}
		err = errors.Join(err, cmd.Wait())
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return out, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, exec.ErrNotFound):
		return nil, p.missing(c.What)
	case errors.As(err, &exit):
		return out, &ExitError{c.What, c.Program, exit.ExitCode(), string(out) + string(said), err}
	}
	return nil, fmt.Errorf("%s: %w", c.What, err)
}
