package machined

import (
	"embed"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"text/template"

	"golang.org/x/sys/unix"
)

// Where a private host keeps what is its own, below its fresh /run.
const (
	insideDir   = "/run/imgmut"
	insideUnits = insideDir + "/units"
	insideEmpty = insideDir + "/empty" // stands in for directories that must hold nothing
	insideProc  = insideDir + "/proc"  // see insideMounts
	hostTarget  = "imgmut-host.target"
)

//go:embed units
var unitFiles embed.FS

// InitPrivateHost turns the calling process into PID 1 of a private host. It
// is what the command line in [Options.Init] must call, first thing in main;
// paths are the arguments that Open puts behind it. It returns only on error;
// the caller prints that to standard error, where [Open] reads it, and exits
// with a status other than 0.
//
// Standard error must be the terminal that Open made: it becomes the host's
// console. The environment, which Open made as well, becomes that of systemd.
func InitPrivateHost(paths []string) error {
	// Namespaces and capabilities belong to threads, and execve keeps the
	// calling one.
	runtime.LockOSThread()
	// Not the caller's: the bus runs as a user of its own, which must get to what
	// is made here.
	unix.Umask(0o022)
	if os.Getpid() != 1 {
		return errors.New("start private host: not process 1 of a new namespace; this is not a command for people")
	}
	replaceRoot := func() error { return changeRoot(paths) }
	for _, set := range []func() error{enterCgroup, replaceRoot, bindJournal, writeUnits, dropCapabilities} {
		if err := set(); err != nil {
			return fmt.Errorf("start private host: %w", err)
		}
	}
	systemd, err := findProgram(systemdPaths)
	if err != nil {
		return fmt.Errorf("start private host: %w", err)
	}
	argv := []string{systemd, "--system", "--unit=" + hostTarget,
		"--log-target=console", "--log-level=info", "--log-color=no", "--show-status=no"}
	return fmt.Errorf("execute %s: %w", systemd, unix.Exec(systemd, argv, os.Environ()))
}

// enterCgroup makes the cgroup in which Open started this process the root of
// the hierarchy that it sees.
func enterCgroup() error {
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare cgroup namespace: %w", err)
	}
	return nil
}

// writeUnits fills the only directory in which PID 1 looks for units. The
// files are templates because programs live in different places.
func writeUnits() error {
	programs, err := findUnitPrograms()
	if err != nil {
		return err
	}
	t, err := template.ParseFS(unitFiles, "units/*")
	if err != nil {
		return err
	}
	for _, unit := range t.Templates() {
		if err := writeUnit(unit, programs); err != nil {
			return err
		}
	}
	// The name under which the bus activates machined: it exits when idle.
	return os.Symlink("systemd-machined.service", path.Join(insideUnits, "dbus-org.freedesktop.machine1.service"))
}

func writeUnit(unit *template.Template, programs unitPrograms) error {
	f, err := os.Create(filepath.Join(insideUnits, unit.Name()))
	if err != nil {
		return err
	}
	defer f.Close() // closing twice is harmless
	if err := unit.Execute(f, programs); err != nil {
		return fmt.Errorf("write unit: %w", err)
	}
	return f.Close()
}

// dropCapabilities takes from PID 1, and so from everything below it, what
// would reach past the namespaces: the clock, kernel modules, and reboot(2).
// The bounding set suffices, since execve as root gains nothing outside it.
func dropCapabilities() error {
	for _, c := range []uintptr{unix.CAP_SYS_TIME, unix.CAP_SYS_MODULE, unix.CAP_SYS_BOOT} {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return nil
}
