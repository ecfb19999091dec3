package agent

import (
	"fmt"
	"syscall"
	"time"
)

// Command is a program to run in the guest.
type Command struct {
	Title   string // for people, in place of the program's name or "script"
	Argv    []string
	Script  string            // instead of Argv: its text; sh -e, or the interpreter of its first line
	Env     map[string]string // beside the guest's own
	Dir     string            // / if empty
	Timeout time.Duration     // none if 0
	// Covers are files that the command sees in place of the image's own.
	// Afterwards the image's are back, or missing again.
	Covers []Cover
	Lend   Lend // for the engine to say
}

// Cover is a file that only one command sees.
type Cover struct {
	Path    string
	Content string
	Mode    uint32 // permission bits
	// Reader is the program that the file is for, by path; "" if it is for any. The command
	// may install it: the directories that were made for the file are then the program's,
	// and stay. Where it is not there and the file cannot be made, it is left out.
	Reader string
}

// ExitError says that a command ran and did not succeed.
type ExitError struct {
	Command string // for people: the program, or "script"
	Code    int    // exit status, or -1 after a signal or a timeout
	Reason  string // "exit status 3", "killed by SIGKILL", "still running after 5s"
}

func (e *ExitError) Error() string { return fmt.Sprintf("%s: %s", e.Command, e.Reason) }

// GuestError says that the guest could not do what it was asked: the image
// does not allow it.
type GuestError struct {
	Text  string
	Errno syscall.Errno // what the guest's kernel said, 0 if nothing
}

func (e *GuestError) Error() string { return e.Text }

// Unwrap gives the errno, if there is one.
func (e *GuestError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}
