package machined

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/godbus/dbus/v5"
)

// Errors that callers branch on. Each one comes wrapped in what was being done
// to which object; compare with [errors.Is].
var (
	// ErrNoImage means that machined finds no image of that name in any of
	// its directories.
	ErrNoImage = errors.New("no such image")
	// ErrExists means that a unit or machine of that name is already there.
	// Nothing was started, and the other one was left alone.
	ErrExists = errors.New("name already in use")
	// ErrHostDown means that PID 1 or the bus went away during the call, or
	// that the [Host] was closed.
	ErrHostDown = errors.New("host connection lost")
)

var (
	// errNoMachine is what machined answers for a machine that ended, or never
	// registered.
	errNoMachine = errors.New("no such machine")
	// errNoUnit is what PID 1 answers for a unit that it has already forgotten.
	errNoUnit = errors.New("no such unit")
)

// busErrors maps D-Bus error names to the errors above.
//
// Sources: bus-common-errors.h in systemd's tree, and the D-Bus specification's
// section on the bus' own errors.
var busErrors = map[string]error{
	"org.freedesktop.machine1.NoSuchMachine":  errNoMachine,
	"org.freedesktop.machine1.NoSuchImage":    ErrNoImage,
	"org.freedesktop.machine1.MachineExists":  ErrExists,
	"org.freedesktop.systemd1.UnitExists":     ErrExists,
	"org.freedesktop.systemd1.NoSuchUnit":     errNoUnit,
	"org.freedesktop.DBus.Error.AccessDenied": fs.ErrPermission,
	"org.freedesktop.DBus.Error.AuthFailed":   fs.ErrPermission,
	"org.freedesktop.DBus.Error.Disconnected": ErrHostDown,
	"org.freedesktop.DBus.Error.NoReply":      ErrHostDown,

	"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": fs.ErrPermission,
}

// busError is a D-Bus error reply. Its text is the peer's own sentence, and it
// unwraps to the sentinel that the error's name stands for.
type busError struct {
	reply    dbus.Error
	sentinel error // nil for a name that is not in busErrors
}

func (e *busError) Error() string {
	// Peers write sentences, our errors are fragments.
	return strings.TrimSuffix(e.reply.Error(), ".")
}

func (e *busError) Unwrap() error { return e.sentinel }

// callError names the call that err ended and maps D-Bus error names to the
// sentinels of this package. It returns nil for nil.
func callError(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf(format, args...)
	var reply dbus.Error
	switch {
	case errors.As(err, &reply):
		return fmt.Errorf("%s: %w", what, &busError{reply, busErrors[reply.Name]})
	case errors.Is(err, dbus.ErrClosed):
		return fmt.Errorf("%s: %w", what, ErrHostDown)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer: %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// ExitError reports a container whose unit failed. systemd-nspawn passes the
// status of the command through, so Status 1 may be the command's or nspawn's
// own; what nspawn had to say went to the container's Stderr.
type ExitError struct {
	Unit   string // "NAME.service"
	Ready  bool   // whether the container was up before it failed
	Result string // PID 1's word: "exit-code", "signal", "timeout", "protocol", "oom-kill", …
	Signal bool   // whether Status is a signal number rather than an exit status
	Status int    // of the unit's main process, which is systemd-nspawn
}

// Fault says whose fault it is, "" if that is not known. Status 1, before the container
// was up, is how systemd-nspawn refuses the image's tree.
func (e *ExitError) Fault() string {
	if !e.Ready && e.Result == "exit-code" && e.Status == 1 {
		return "image"
	}
	return ""
}

// Error says what the unit was doing and how it ended.
func (e *ExitError) Error() string {
	doing := "start"
	if e.Ready {
		doing = "run"
	}
	how := fmt.Sprintf("exit status %d", e.Status)
	if e.Signal {
		how = fmt.Sprintf("signal %d", e.Status)
	}
	if e.Result != "exit-code" && e.Result != "signal" {
		how = fmt.Sprintf("%s (%s)", e.Result, how)
	}
	return fmt.Sprintf("%s %s: %s", doing, e.Unit, how)
}
