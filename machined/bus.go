package machined

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// callTimeout bounds every single D-Bus call. It is D-Bus' customary default;
// bus and machined have been seen to deadlock (systemd issue 40562), and a call
// that never returns would hold a container for ever.
const callTimeout = 25 * time.Second

const (
	systemdName  = "org.freedesktop.systemd1"
	systemdPath  = "/org/freedesktop/systemd1"
	machinedName = "org.freedesktop.machine1"
	machinedPath = "/org/freedesktop/machine1"
	managerPart  = ".Manager."

	// Below the host's root directory.
	busSocket     = "/run/dbus/system_bus_socket"
	systemdSocket = "/run/systemd/private"
)

// conns are the connections to one host, all through its bus.
//
// PID 1 also has a socket of its own that needs no bus. But there it refuses
// clients whose process id it cannot see, and from a private host it cannot see
// ours. The bus accepts such clients.
type conns struct {
	jobs *sd.Conn   // PID 1: starting and stopping units
	bus  *dbus.Conn // all else, and all signals
}

// connect opens all connections to the host whose root directory is root: ""
// for this machine, /proc/PID/root for a private one.
func connect(ctx context.Context, root string) (_ *conns, err error) {
	socket := root + busSocket
	c := &conns{}
	if c.bus, err = dial(ctx, socket, true); err != nil {
		return nil, fmt.Errorf("connect to the system bus: %w", err)
	}
	c.jobs, err = sd.NewConnection(func() (*dbus.Conn, error) { return dial(ctx, socket, true) })
	if err != nil {
		_ = c.bus.Close()
		return nil, fmt.Errorf("connect to systemd: %w", err)
	}
	return c, nil
}

func (c *conns) close() {
	c.jobs.Close()
	_ = c.bus.Close() // closing twice is harmless
}

// dial connects to the socket at path: of a bus, or of PID 1 itself. ctx bounds
// the handshake only; godbus' own context option would end the connection with it.
func dial(ctx context.Context, path string, bus bool) (*dbus.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := dbus.Dial("unix:path="+dbus.EscapeBusAddressValue(path),
		// The default handler may reorder signals when a reader is slow.
		dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	err = conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))})
	if err == nil && bus {
		err = conn.Hello()
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("authenticate at %s: %w", path, err)
	}
	return conn, nil
}

// callManager calls a method of systemd's Manager and stores its reply.
func (c *conns) callManager(ctx context.Context, method string, args []any, reply ...any) error {
	return call(ctx, c.bus.Object(systemdName, systemdPath), systemdName+managerPart+method, args, reply...)
}

// callMachined calls a method of machined's Manager and stores its reply.
func (c *conns) callMachined(ctx context.Context, method string, args []any, reply ...any) error {
	return call(ctx, c.bus.Object(machinedName, machinedPath), machinedName+managerPart+method, args, reply...)
}

// property reads one property of a bus object into value.
func property(ctx context.Context, o dbus.BusObject, iface, name string, value any) error {
	var v dbus.Variant
	err := call(ctx, o, "org.freedesktop.DBus.Properties.Get", []any{iface, name}, &v)
	if err != nil {
		return err
	}
	return v.Store(value)
}

func call(ctx context.Context, o dbus.BusObject, method string, args []any, reply ...any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return o.CallWithContext(ctx, method, 0, args...).Store(reply...)
}
