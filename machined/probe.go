package machined

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// minVersion is the oldest systemd whose nspawn has every option used here.
const minVersion = 252

// Where distributions keep the programs of a host. Debian 12 still ships some
// below /lib, which is a symbolic link on merged systems only.
var (
	systemdPaths  = []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd"}
	machinedPaths = []string{"/usr/lib/systemd/systemd-machined", "/lib/systemd/systemd-machined"}
	nspawnPaths   = []string{"/usr/bin/systemd-nspawn", "/bin/systemd-nspawn"}
	daemonPaths   = []string{"/usr/bin/dbus-daemon", "/bin/dbus-daemon"}
	brokerPaths   = []string{"/usr/bin/dbus-broker-launch"}
)

// Check is one thing that running containers on this machine needs.
type Check struct {
	Name  string // what is needed: "systemd-nspawn", "cgroup2", …
	Found string // what is there: a path, a version, "" if nothing
	Err   error  // nil when it is good
	Mend  string // what to do about Err; "" when nothing can be done
	Mode  Mode   // the host that needs it; Auto when both do
}

// MissingError says that this machine lacks something that a host needs. It is
// returned before anything is touched, and it is an [errors.ErrUnsupported].
type MissingError struct {
	Mode   Mode    // the host that was asked for
	Checks []Check // those that failed, at least one
}

// Error names everything that is missing, without the mends.
func (e *MissingError) Error() string {
	var lacks []string
	for _, c := range e.Checks {
		lacks = append(lacks, fmt.Sprintf("%s: %v", c.Name, c.Err))
	}
	return fmt.Sprintf("open %s host: %s", e.Mode, strings.Join(lacks, "; "))
}

// Fault says that the machine is to blame.
func (e *MissingError) Fault() string { return "host" }

// Hint is what to do about all that is missing.
func (e *MissingError) Hint() string {
	var mends []string
	for _, c := range e.Checks {
		if c.Mend != "" {
			mends = append(mends, c.Mend)
		}
	}
	return strings.Join(mends, "; ")
}

// Is makes the error an [errors.ErrUnsupported].
func (e *MissingError) Is(target error) bool { return target == errors.ErrUnsupported }

// Unwrap returns the failed checks' errors.
func (e *MissingError) Unwrap() []error {
	var errs []error
	for _, c := range e.Checks {
		errs = append(errs, c.Err)
	}
	return errs
}

// Probe reports everything that hosts need and whether this machine has it. It
// changes nothing and starts nothing but "systemd-nspawn --version", and machined
// if the machine's own bus has to start it to say whether it can.
func Probe(ctx context.Context) []Check {
	checks := slices.Concat(commonChecks(ctx), privateChecks())
	return append(checks, systemCheck(ctx))
}

// missing returns a MissingError for those of checks that failed, or nil.
func missing(mode Mode, checks []Check) error {
	failed := slices.DeleteFunc(slices.Clone(checks), func(c Check) bool { return c.Err == nil })
	if len(failed) == 0 {
		return nil
	}
	return &MissingError{Mode: mode, Checks: failed}
}

// mendContainer says where the programs for containers come from.
const mendContainer = "install systemd-container (Debian, Ubuntu, Fedora) or systemd (Arch)"

// commonChecks are the needs of every host.
func commonChecks(ctx context.Context) []Check {
	nspawn := programCheck("systemd-nspawn", nspawnPaths, mendContainer, Auto)
	if nspawn.Err == nil {
		version, err := nspawnVersion(ctx, nspawn.Found)
		nspawn.Found = fmt.Sprintf("%s, version %d", nspawn.Found, version)
		if err == nil && version < minVersion {
			err = fmt.Errorf("version %d is too old, need %d", version, minVersion)
			nspawn.Mend = "use a newer release: Debian 12, Ubuntu 24.04, Fedora 37 or later"
		}
		nspawn.Err = err
	}
	return []Check{rootCheck(), nspawn, loopCheck()}
}

// privateChecks are the needs of a private host beyond the common ones.
func privateChecks() []Check {
	buses := slices.Concat(daemonPaths, brokerPaths)
	return []Check{
		programCheck("systemd", systemdPaths, "install systemd", Private),
		programCheck("systemd-machined", machinedPaths, mendContainer, Private),
		programCheck("dbus-daemon or dbus-broker", buses, "install dbus or dbus-broker", Private),
		cgroupCheck(),
	}
}

func systemCheck(ctx context.Context) Check {
	c := Check{Name: "running systemd with machined", Mode: System}
	c.Mend = "nothing to do: a private host does without"
	h, err := openSystem(ctx)
	if err != nil {
		c.Err = err
		return c
	}
	c.Found = fmt.Sprintf("version %d", h.Version())
	_ = h.Close()
	return c
}

func rootCheck() Check {
	c := Check{Name: "root", Mode: Auto, Mend: asRoot}
	if uid := os.Geteuid(); uid != 0 {
		c.Err = fmt.Errorf("running as user %d", uid)
		return c
	}
	c.Mend = "run outside the container, or start it with --privileged"
	var data [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		c.Err = fmt.Errorf("read capabilities: %w", err)
		return c
	}
	if data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		c.Err = errors.New("root without the capability CAP_SYS_ADMIN")
		return c
	}
	// Block devices cannot be mounted from a user namespace at all.
	if ids, err := os.ReadFile("/proc/self/uid_map"); err == nil {
		if !slices.Equal(strings.Fields(string(ids)), []string{"0", "0", "4294967295"}) {
			c.Err = errors.New("root of a user namespace, not of the machine")
			return c
		}
	}
	c.Found = "uid 0 with CAP_SYS_ADMIN"
	return c
}

// loopCheck opens the loop driver's control device, which also loads the driver
// where it is a module. Containers need none, but trees come from images, which
// machined and its callers look into by loop devices.
func loopCheck() Check {
	const node = "/dev/loop-control"
	c := Check{Name: "loop devices", Mode: Auto, Mend: "modprobe loop, or start the container with --privileged"}
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		return c.denied(err)
	}
	_ = f.Close()
	c.Found = node
	return c
}

// asRoot is the mend of what only root may do.
const asRoot = "run as root: sudo"

// denied is a check that failed. What root alone may do is mended by being root,
// whatever else would be the mend.
func (c Check) denied(err error) Check {
	if c.Err = err; os.Geteuid() != 0 && errors.Is(err, fs.ErrPermission) {
		c.Mend = asRoot
	}
	return c
}

func cgroupCheck() Check {
	c := Check{Name: "cgroup2", Mode: Private, Mend: "start the container with --privileged"}
	own, err := mountOwnCgroup()
	if err != nil {
		return c.denied(err)
	}
	defer own.Close()
	if err := unix.Access(pathOf(own), unix.W_OK); err != nil {
		return c.denied(fmt.Errorf("write to the own cgroup: %w", err))
	}
	c.Found = "writable"
	return c
}

func programCheck(name string, paths []string, mend string, mode Mode) Check {
	path, err := findProgram(paths)
	return Check{Name: name, Found: path, Err: err, Mend: mend, Mode: mode}
}

// findProgram returns the first of paths that is an executable file.
func findProgram(paths []string) (string, error) {
	for _, path := range paths {
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("no %s", paths[0])
}

func nspawnVersion(ctx context.Context, path string) (int, error) {
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = []string{"LC_ALL=C"}
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%s --version: %w", path, err)
	}
	fields := strings.Fields(string(out)) // "systemd 252 (252.39-1~deb12u1)…"
	if len(fields) < 2 || fields[0] != "systemd" {
		return 0, fmt.Errorf("%s --version: unexpected answer %.40q", path, out)
	}
	return parseVersion(fields[1])
}

// parseVersion returns the number that a systemd version string begins with:
// 252 for "252.39-1~deb12u1", 258 for "v258~rc1".
func parseVersion(s string) (int, error) {
	digits := strings.TrimPrefix(s, "v")
	if end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		digits = digits[:end]
	}
	version, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("parse systemd version %q: no number", s)
	}
	return version, nil
}

// unitPrograms are the command lines in the embedded units.
type unitPrograms struct{ Bus, Machined string }

func findUnitPrograms() (p unitPrograms, err error) {
	if p.Machined, err = findProgram(machinedPaths); err != nil {
		return p, err
	}
	if daemon, err := findProgram(daemonPaths); err == nil {
		p.Bus = daemon + " --system --address=systemd: --nofork --nopidfile --systemd-activation"
		return p, nil
	}
	broker, err := findProgram(brokerPaths)
	p.Bus = broker + " --scope system"
	return p, err
}
