package machined

import (
	"embed"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"

	"golang.org/x/sys/unix"
)

// Where a private host keeps what is its own, below its fresh /run.
const (
	insideDir   = "/run/imgmut"
	insideUnits = insideDir + "/units"
	insideEmpty = insideDir + "/empty" // stands in for directories that must hold nothing
	insideProc  = insideDir + "/proc"  // see insideMounts
	insideTTY   = insideDir + "/console"
	hostTarget  = "imgmut-host.target"
)

//go:embed units
var unitFiles embed.FS

// InitPrivateHost turns the calling process into PID 1 of a private host. It
// is what the command line in [Options.Init] must call, first thing in main.
// It returns only on error; the caller prints that to standard error, where
// [Open] reads it, and exits with a status other than 0.
//
// Standard error must be the terminal that Open made: it becomes the host's
// console. The environment is the one Open made too, and is handed on whole.
func InitPrivateHost() error {
	// Namespaces and capabilities belong to threads, and execve keeps the
	// calling one.
	runtime.LockOSThread()
	// Not the caller's: the bus runs as a user of its own, who must get to what
	// is made here.
	unix.Umask(0o022)
	if os.Getpid() != 1 {
		return errors.New("start private host: not process 1 of a new namespace; this is not a command for people")
	}
	for _, set := range []func() error{enterCgroup, mountInside, bindJournal, writeUnits, dropCapabilities} {
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

// enterCgroup makes the cgroup that Open started us in the root of what we see.
func enterCgroup() error {
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare cgroup namespace: %w", err)
	}
	return nil
}

// mount is one mount(2) call.
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
	optional               bool // skipped where target does not exist
}

// insideMounts turns the machine's view into the private host's, in order.
//
// PID 1 does things to its machine that no unit asks for. It raises fs.file-max,
// fs.nr_open and net.unix.max_dgram_qlen (systemd's main.c), writes a missing
// /etc/machine-id, and enables every preset unit in /etc if that was missing.
// Hence the read-only binds.
var insideMounts = []mount{
	// Slave, not private: a store mounted later appears, and one unmounted
	// outside is not kept busy by us.
	{target: "/", flags: unix.MS_SLAVE | unix.MS_REC},
	{source: "tmpfs", target: "/run", fstype: "tmpfs", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=755"},
	{source: "cgroup2", target: "/sys/fs/cgroup", fstype: "cgroup2", flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	{source: "proc", target: "/proc", fstype: "proc", flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	// The kernel lets a user namespace mount proc only where one without
	// anything mounted over it is visible (mount_too_revealing), and the next
	// two mounts spoil /proc for that.
	{source: "proc", target: insideProc, fstype: "proc", flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	{source: "/proc/sys", target: "/proc/sys", flags: unix.MS_BIND},
	{target: "/proc/sys", flags: unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	{source: "/etc", target: "/etc", flags: unix.MS_BIND | unix.MS_REC},
	{target: "/etc", flags: unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
	// The distribution's rules would put the guest's partitions into
	// /dev/disk, activate its LVM and assemble its RAID, on the machine.
	// systemd-nspawn needs a udevd that answers, not its rules.
	{source: insideEmpty, target: "/usr/lib/udev/rules.d", flags: unix.MS_BIND, optional: true},
	{source: insideEmpty, target: "/usr/local/lib/udev/rules.d", flags: unix.MS_BIND, optional: true},
	{source: insideEmpty, target: "/etc/udev/rules.d", flags: unix.MS_BIND, optional: true},
	// PID 1 writes to the console and resets it, and takes the keyboard
	// request signal of tty0. Neither is ours.
	{source: insideTTY, target: "/dev/console", flags: unix.MS_BIND},
	{source: "/dev/null", target: "/dev/tty0", flags: unix.MS_BIND, optional: true},
}

func mountInside() error {
	dev, err := fstypeAt("/dev")
	if err != nil {
		return err
	}
	for _, m := range insideMounts {
		if err := m.do(); err != nil {
			return err
		}
		if m.target != "/run" {
			continue
		}
		if err := fillRun(); err != nil {
			return err
		}
		if dev == "devtmpfs" {
			continue
		}
		// A container's own /dev, a tmpfs: new loop devices would not show
		// up in it, and it may lack a console.
		if err := (mount{source: "devtmpfs", target: "/dev", fstype: "devtmpfs", flags: unix.MS_NOSUID}).do(); err != nil {
			return err
		}
	}
	return nil
}

// fillRun makes what the other mounts need below the new /run. The console is
// bound here first, while its path still leads to it.
func fillRun() error {
	for _, dir := range []string{insideUnits, insideEmpty, insideProc, "/run/dbus", "/run/lock"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	console, err := os.Readlink("/proc/self/fd/2")
	if err != nil {
		return err
	}
	if !strings.HasPrefix(console, "/dev/pts/") {
		return fmt.Errorf("standard error is %s, not a terminal", console)
	}
	if err := os.WriteFile(insideTTY, nil, 0o600); err != nil {
		return err
	}
	return mount{source: console, target: insideTTY, flags: unix.MS_BIND}.do()
}

// fstypeAt returns the type of the filesystem that is mounted on target, "" if
// none is. /proc/self/mountinfo lists what covers a mount after it.
func fstypeAt(target string) (string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	fstype := ""
	for line := range strings.Lines(string(table)) {
		// ID PARENT DEV ROOT TARGET OPTIONS [TAG…] - TYPE SOURCE SUPEROPTIONS
		before, after, _ := strings.Cut(line, " - ")
		fields, types := strings.Fields(before), strings.Fields(after)
		if len(fields) > 4 && len(types) > 0 && fields[4] == target {
			fstype = types[0]
		}
	}
	return fstype, nil
}

func (m mount) do() error {
	if m.optional {
		if _, err := os.Stat(m.target); err != nil {
			return nil
		}
	}
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s%s on %s: %w", m.fstype, m.source, m.target, err)
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
