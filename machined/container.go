package machined

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// Container describes a container to start over a tree of files.
type Container struct {
	// Name is the machine's name, and "NAME.service" is the unit. It must be
	// a host name of at most 64 bytes and unique on the host.
	Name string
	// Directory is the absolute path of the tree's root, as Launcher makes it or, if
	// there is none, as the host sees it: a private one sees only what is below one
	// of [Options.Paths]. It is not locked: that no other container writes to it is for
	// the caller to see to.
	Directory string
	ReadOnly  bool
	// Launcher, if not empty, is run in place of systemd-nspawn: a command line that
	// gets that of systemd-nspawn as further arguments, and has to execute it in the
	// same process. What it mounts in a mount namespace of its own only the container
	// sees, and it is gone with it. It runs as the machine's root, and its standard
	// descriptors are those below. Status 1 of it is taken for a fault of the tree.
	Launcher []string
	// RuntimeDirectory, if not empty, is the name of a directory in /run that is made
	// for the container, with mode 0700, and removed with all that is in it when the
	// container ends, however it does. Nothing else may be there.
	RuntimeDirectory string
	// Command runs as process 2 of the container, below a stub that reaps.
	// Its first word is a path in the container. When it ends, so does all
	// else that runs there.
	Command []string
	Binds   []Bind
	// Devices are block devices that the container may open, for reading and writing, if
	// it has a node of them: /dev/block/MAJOR:MINOR.
	Devices []string
	// UserShift and Users give the container a user namespace: id n in it is
	// UserShift+n on the machine, for every n below Users. The tree's owners have to
	// be so already, as those of an id-mapped mount are. With no Users the container's
	// root is the machine's.
	UserShift, Users uint32
	// PrivateNetwork gives the container a network namespace of its own, with
	// nothing but loopback. Without it the container has the machine's network.
	PrivateNetwork bool
	// AddCapabilities and DropCapabilities are names such as
	// "CAP_NET_ADMIN", relative to systemd-nspawn's default set.
	AddCapabilities, DropCapabilities []string
	// Environment, "NAME=value" each, is that of the unit: it is read by
	// systemd-nspawn, and no part of it reaches Command.
	Environment []string
	// The standard descriptors of Command; nil is /dev/null. They are passed
	// as they are and must not be terminals. Stderr carries the messages of
	// systemd-nspawn as well. The caller closes its own after Start.
	Stdin, Stdout, Stderr *os.File
}

// Bind makes Source, a path on the host with all that is mounted below it, visible as
// Target, an absolute path in the container.
type Bind struct {
	Source, Target string
	Writable       bool
}

// machineName is systemd's hostname_is_valid(): labels of letters, digits and
// inner dashes, joined by single dots. Stricter than a unit's name.
var machineName = lazyregexp.New(`^` + label + `(\.` + label + `)*$`)

// deviceNumber is how systemd names a device that need have no node.
var deviceNumber = lazyregexp.New(`^/dev/block/[0-9]+:[0-9]+$`)

const label = `[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?`

// check reports every problem with c that systemd-nspawn would only find later.
func (c *Container) check() error {
	var errs []error
	if len(c.Name) > 64 || !machineName().MatchString(c.Name) {
		errs = append(errs, fmt.Errorf("name %q: want a host name of at most 64 bytes", c.Name))
	}
	if !filepath.IsAbs(c.Directory) {
		errs = append(errs, fmt.Errorf("directory %q: want an absolute path", c.Directory))
	}
	if len(c.Command) == 0 {
		errs = append(errs, errors.New("no command"))
	}
	if len(c.Launcher) > 0 && !filepath.IsAbs(c.Launcher[0]) {
		errs = append(errs, fmt.Errorf("launcher %q: want an absolute path", c.Launcher[0]))
	}
	if c.RuntimeDirectory != "" && !machineName().MatchString(c.RuntimeDirectory) { // a path could be somebody else's
		errs = append(errs, fmt.Errorf("runtime directory %q: want a name such as that of a machine", c.RuntimeDirectory))
	}
	// The last id is nobody's: (uid_t) -1.
	if uint64(c.UserShift)+uint64(c.Users) > math.MaxUint32 || c.Users == 0 && c.UserShift != 0 {
		errs = append(errs, fmt.Errorf("%d users from %d: there are no such", c.Users, c.UserShift))
	}
	for _, b := range c.Binds {
		if !filepath.IsAbs(b.Source) || !filepath.IsAbs(b.Target) {
			errs = append(errs, fmt.Errorf("bind %s on %s: want absolute paths", b.Source, b.Target))
		}
	}
	for _, d := range c.Devices {
		if !deviceNumber().MatchString(d) {
			errs = append(errs, fmt.Errorf("device %s: want /dev/block/MAJOR:MINOR", d))
		}
	}
	return errors.Join(errs...)
}

// nspawnArgs are the arguments of systemd-nspawn, without its name. All
// options exist since systemd 252.
func (c *Container) nspawnArgs() []string {
	args := []string{
		"--quiet",
		"--settings=no", // NAME.nspawn next to the directory is not ours
		"--keep-unit", "--register=yes",
		"--machine=" + c.Name,
		"--directory=" + c.Directory,
		"--as-pid2",
		"--console=pipe",
		// The defaults of these three write into the tree.
		"--link-journal=no", "--timezone=off", "--resolv-conf=off",
		// With --as-pid2 no program in the container would say that it is ready.
		"--notify-ready=no",
		// Without it poweroff ends the container with status 0.
		"--drop-capability=" + strings.Join(append([]string{"CAP_SYS_BOOT"}, c.DropCapabilities...), ","),
	}
	if len(c.AddCapabilities) > 0 {
		args = append(args, "--capability="+strings.Join(c.AddCapabilities, ","))
	}
	if c.Users > 0 {
		// Not "auto", which changes every owner in the tree where it cannot map. Nor "map":
		// Linux before 6.15 maps no mount that is mapped already.
		args = append(args, fmt.Sprintf("--private-users=%d:%d", c.UserShift, c.Users), "--private-users-ownership=off")
	} else {
		args = append(args, "--private-users=no")
	}
	if c.PrivateNetwork {
		args = append(args, "--private-network")
	}
	if c.ReadOnly {
		args = append(args, "--read-only")
	}
	for _, b := range c.Binds {
		option := "--bind-ro="
		if b.Writable {
			option = "--bind="
		}
		args = append(args, option+escapeBind(b.Source)+":"+escapeBind(b.Target))
	}
	return append(append(args, "--"), c.Command...)
}

// escapeBind protects the characters that separate the parts of a bind option.
func escapeBind(path string) string {
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`).Replace(path)
}

// The D-Bus types of the unit properties below, which systemd checks strictly.
type (
	execCommand struct { // a(sasas)
		Path  string
		Args  []string
		Flags []string
	}
	deviceRule struct{ Node, Access string } // a(ss)
)

// memoryShare is how much of the machine's memory a container may have, so that
// one which takes it without end leaves enough to end it. It holds where the
// memory controller is in the unified hierarchy of cgroups.
const memoryShare = math.MaxUint32 / 4 * 3 // of MaxUint32

// properties are those of the transient unit. They mirror the distribution's
// systemd-nspawn@.service.
func (c *Container) properties(nspawn string) []sd.Property {
	environment := []string{
		"SYSTEMD_LOG_TARGET=console", // to Stderr
		"LC_ALL=C",                   // and not in the language of the machine's PID 1
		"SYSTEMD_NSPAWN_LOCK=0",      // locks are files in /run and beside Directory that stay when nspawn is killed
	}
	argv := slices.Concat(c.Launcher, []string{nspawn}, c.nspawnArgs())
	// Beside the caller's, two that systemd-nspawn makes, and leaves when it is killed.
	directories := []string{"systemd/nspawn/propagate/" + c.Name, "systemd/nspawn/unix-export/" + c.Name}
	if c.RuntimeDirectory != "" {
		directories = append(directories, c.RuntimeDirectory)
	}
	rules := []deviceRule{{"char-pts", "rw"}, {"/dev/net/tun", "m"}}
	for _, d := range c.Devices {
		rules = append(rules, deviceRule{d, "rw"})
	}
	props := []sd.Property{
		prop("Description", "imgmut container "+c.Name),
		prop("Type", "notify"), // started means: registered and about to run Command
		// PID 1 would expand $NAME in Command.
		prop("ExecStartEx", []execCommand{{argv[0], argv, []string{"no-env-expand"}}}),
		prop("Environment", append(environment, c.Environment...)),
		prop("Slice", "machine.slice"),
		prop("RuntimeDirectory", directories), prop("RuntimeDirectoryMode", uint32(0o700)),
		prop("Delegate", true), // nspawn makes cgroups below the unit's
		prop("KillMode", "mixed"),
		prop("CollectMode", "inactive-or-failed"), // leave no failed unit behind
		prop("TimeoutStartUSec", uint64(60e6)),
		prop("TimeoutStopUSec", uint64(10e6)),
		prop("OOMPolicy", "continue"), // a killed step must not take the container along
		prop("TasksMax", uint64(16384)),
		prop("MemoryMaxScale", uint32(memoryShare)),
		// The container's root may make device nodes; this is what stops it
		// from using the machine's disks. Terminals are for its own /dev/pts. With a
		// network and users of its own, systemd-nspawn 257 does not start a container in
		// which it cannot make the node of tunnels; to open that is another thing.
		prop("DevicePolicy", "closed"),
		prop("DeviceAllow", rules),
	}
	for _, std := range []struct {
		name string
		file *os.File
	}{{"StandardInput", c.Stdin}, {"StandardOutput", c.Stdout}, {"StandardError", c.Stderr}} {
		if std.file == nil {
			props = append(props, prop(std.name, "null"))
			continue
		}
		fd := std.file.Fd()
		if fd > math.MaxInt32 { // a closed file
			fd = math.MaxInt32
		}
		props = append(props, prop(std.name+"FileDescriptor", dbus.UnixFD(fd)))
	}
	return props
}

func prop(name string, value any) sd.Property {
	return sd.Property{Name: name, Value: dbus.MakeVariant(value)}
}
