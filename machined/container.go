package machined

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// Container describes a container to start over an image.
type Container struct {
	// Name is the machine's name, and "NAME.service" is the unit. It must be
	// a host name of at most 64 bytes and unique on the host.
	Name string
	// Image is the absolute path of the raw image file. A private host sees
	// only what is below one of [Options.Paths].
	Image    string
	ReadOnly bool // mount the image read-only
	// Command runs as process 2 of the container, below a stub that reaps.
	// Its first word is a path in the container. When it ends, so does all
	// else that runs there.
	Command []string
	Binds   []Bind
	// PrivateUsers gives the container a user namespace with ids of its own,
	// by an id-mapped mount: file ownership in the image stays as it is.
	// Without it the container's root is the machine's.
	PrivateUsers bool
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

// Bind makes Source, a path on the host, visible read-only as Target, an
// absolute path in the container.
type Bind struct{ Source, Target string }

// machineName is systemd's hostname_is_valid(): labels of letters, digits and
// inner dashes, joined by single dots. Stricter than a unit's name.
var machineName = regexp.MustCompile(`^` + label + `(\.` + label + `)*$`)

const label = `[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?`

// check reports every problem with c that systemd-nspawn would only find later.
func (c *Container) check() error {
	var errs []error
	if len(c.Name) > 64 || !machineName.MatchString(c.Name) {
		errs = append(errs, fmt.Errorf("name %q: want a host name of at most 64 bytes", c.Name))
	}
	if !filepath.IsAbs(c.Image) {
		errs = append(errs, fmt.Errorf("image %q: want an absolute path", c.Image))
	}
	if len(c.Command) == 0 {
		errs = append(errs, errors.New("no command"))
	}
	for _, b := range c.Binds {
		if !filepath.IsAbs(b.Source) || !filepath.IsAbs(b.Target) {
			errs = append(errs, fmt.Errorf("bind %s on %s: want absolute paths", b.Source, b.Target))
		}
	}
	return errors.Join(errs...)
}

// nspawnArgs are the arguments of systemd-nspawn, without its name. All
// options exist since systemd 252.
func (c *Container) nspawnArgs() []string {
	args := []string{
		"--quiet",
		"--settings=no", // NAME.nspawn next to the image is not ours
		"--keep-unit", "--register=yes",
		"--machine=" + c.Name,
		"--image=" + c.Image,
		"--as-pid2",
		"--console=pipe",
		// The defaults of these three write into the image.
		"--link-journal=no", "--timezone=off", "--resolv-conf=off",
		// With --as-pid2 no program in the container would say that it is ready.
		"--notify-ready=no",
		// Without it poweroff ends the container with status 0.
		"--drop-capability=" + strings.Join(append([]string{"CAP_SYS_BOOT"}, c.DropCapabilities...), ","),
	}
	if len(c.AddCapabilities) > 0 {
		args = append(args, "--capability="+strings.Join(c.AddCapabilities, ","))
	}
	if c.PrivateUsers {
		// Not "auto", which changes every owner in the image where it
		// cannot map.
		args = append(args, "--private-users=pick", "--private-users-ownership=map")
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
		args = append(args, "--bind-ro="+escapeBind(b.Source)+":"+escapeBind(b.Target))
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
	bindPath   struct {                      // a(ssbt)
		Source, Target string
		Optional       bool
		Flags          uint64
	}
	filter struct { // (bas)
		Allow bool
		Names []string
	}
)

// memoryShare is how much of the machine's memory a container may have, so that
// one which takes it without end leaves enough to end it. It holds where the
// memory controller is in the unified hierarchy of cgroups.
const memoryShare = math.MaxUint32 / 4 * 3 // of MaxUint32

// properties are those of the transient unit. They mirror the distribution's
// systemd-nspawn@.service.
func (c *Container) properties(nspawn string, mode Mode) []sd.Property {
	environment := []string{
		// Without it systemd 252 opens a reflinked XFS file with 4096-byte
		// sectors on Linux 6.14 and later, and finds no partitions.
		"SYSTEMD_LOOP_DIRECT_IO=0",
		"SYSTEMD_LOG_TARGET=console", // to Stderr
		"LC_ALL=C",                   // and not in the language of the machine's PID 1
	}
	props := []sd.Property{
		prop("Description", "imgmut container "+c.Name),
		prop("Type", "notify"), // started means: registered and about to run Command
		prop("ExecStartEx", []execCommand{{nspawn, append([]string{nspawn}, c.nspawnArgs()...),
			[]string{"no-env-expand"}}}), // or PID 1 would expand $NAME in Command
		prop("Environment", append(environment, c.Environment...)),
		prop("Slice", "machine.slice"),
		prop("Delegate", true), // nspawn makes cgroups below the unit's
		prop("KillMode", "mixed"),
		prop("CollectMode", "inactive-or-failed"), // leave no failed unit behind
		prop("TimeoutStartUSec", uint64(300e6)),   // fsck of a large image takes a while
		prop("TimeoutStopUSec", uint64(10e6)),
		prop("OOMPolicy", "continue"), // a killed step must not take the container along
		prop("TasksMax", uint64(16384)),
		prop("MemoryMaxScale", uint32(memoryShare)),
		// Sockets to the machine's hypervisor or its guests know no network
		// namespaces, and io_uring makes sockets past this filter.
		prop("RestrictAddressFamilies", filter{false, []string{"AF_VSOCK"}}),
		prop("SystemCallFilter", filter{false, []string{"io_uring_setup:ENOSYS"}}),
		// The container's root may make device nodes; this is what stops it
		// from using the machine's disks.
		prop("DevicePolicy", "closed"),
		prop("DeviceAllow", []deviceRule{
			{"/dev/loop-control", "rw"}, {"block-loop", "rw"}, {"block-blkext", "rw"},
			{"char-pts", "rw"}, {"/dev/net/tun", "rwm"}, {"/dev/fuse", "rwm"},
			{"/dev/mapper/control", "rw"}, {"block-device-mapper", "rw"},
		}),
	}
	if mode == System {
		props = append(props,
			prop("Wants", []string{"modprobe@loop.service"}), prop("After", []string{"modprobe@loop.service"}),
			// When systemd-nspawn is killed, its directories stay in /tmp. This
			// one is removed with the unit. A private host has a /tmp of its own.
			prop("PrivateTmp", true), prop("BindPaths", c.pathsInTmp()))
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

// pathsInTmp are what systemd-nspawn needs of the /tmp and /var/tmp that
// PrivateTmp= hides. What does not exist is left out, for systemd-nspawn to
// complain of.
func (c *Container) pathsInTmp() []bindPath {
	paths := []string{c.Image}
	for _, b := range c.Binds {
		paths = append(paths, b.Source)
	}
	var binds []bindPath
	for _, path := range paths {
		real, err := filepath.EvalSymlinks(path)
		if err == nil && (strings.HasPrefix(real, "/tmp/") || strings.HasPrefix(real, "/var/tmp/")) {
			binds = append(binds, bindPath{Source: real, Target: real, Flags: unix.MS_REC})
		}
	}
	return binds
}

func prop(name string, value any) sd.Property {
	return sd.Property{Name: name, Value: dbus.MakeVariant(value)}
}
