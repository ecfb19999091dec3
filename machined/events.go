package machined

import (
	"context"
	"sync"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// events follows the signals of PID 1 and machined for the units that this
// process started. A unit is watched before it is started, so nothing that
// happens to it can be missed.
type events struct {
	bus *dbus.Conn

	mu    sync.Mutex
	units map[string]*unit // by unit name, by unit object path, by machine name
	lost  bool             // the connection is gone: no event will come any more
}

// unit is what the signals have said so far about one unit and its machine.
type unit struct {
	name    string // "NAME.service"
	machine string // "NAME"
	path    dbus.ObjectPath

	mu      sync.Mutex
	state   unitState
	changed chan struct{} // closed and replaced at every change
}

type unitState struct {
	active     string // ActiveState, "" before the first signal
	result     string // Result of the service
	code       int32  // ExecMainCode, a CLD_ constant of waitid(2)
	status     int32  // ExecMainStatus
	forgotten  bool   // PID 1 said UnitRemoved
	registered bool   // machined said MachineNew
	removed    bool   // machined said MachineRemoved
	lost       bool   // the host is gone
}

// follow subscribes to the signals that name units and machines and dispatches
// signals until the connection closes.
func follow(ctx context.Context, c *conns) (*events, error) {
	// Without a subscriber PID 1 sends no signals to the bus at all.
	if err := c.callManager(ctx, "Subscribe", nil); err != nil {
		return nil, callError(err, "subscribe to systemd")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, match := range [][]dbus.MatchOption{
		{dbus.WithMatchSender(machinedName), dbus.WithMatchObjectPath(machinedPath)},
		{dbus.WithMatchSender(systemdName), dbus.WithMatchObjectPath(systemdPath), dbus.WithMatchMember("UnitRemoved")},
	} {
		if err := c.bus.AddMatchSignalContext(ctx, match...); err != nil {
			return nil, callError(err, "subscribe to signals")
		}
	}
	e := &events{bus: c.bus, units: map[string]*unit{}}
	// The sequential handler queues without bound behind this buffer.
	ch := make(chan *dbus.Signal, 16)
	c.bus.Signal(ch)
	go func() {
		for s := range ch { // closed with the connection
			e.dispatch(s)
		}
		e.lose()
	}()
	return e, nil
}

// match selects the property changes of one unit.
func (u *unit) match() []dbus.MatchOption {
	return []dbus.MatchOption{dbus.WithMatchSender(systemdName), dbus.WithMatchObjectPath(u.path),
		dbus.WithMatchInterface("org.freedesktop.DBus.Properties")}
}

// watch begins to follow the unit called machine+".service". It is ErrExists
// when this process already follows one of that name.
func (e *events) watch(ctx context.Context, machine string) (*unit, error) {
	u := &unit{name: machine + ".service", machine: machine, changed: make(chan struct{})}
	u.path = dbus.ObjectPath(systemdPath + "/unit/" + sd.PathBusEscape(u.name))
	if !e.add(u) {
		return nil, ErrExists
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := e.bus.AddMatchSignalContext(ctx, u.match()...); err != nil {
		e.drop(u)
		return nil, callError(err, "subscribe to %s", u.name)
	}
	return u, nil
}

// forget ends watch. Doing it twice is harmless, also when the name has been
// taken again in between.
func (e *events) forget(u *unit) {
	if !e.drop(u) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	// Left in place it would only cost messages until Close.
	_ = e.bus.RemoveMatchSignalContext(ctx, u.match()...)
}

func (e *events) add(u *unit) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.units[u.name] != nil {
		return false
	}
	u.state.lost = e.lost
	for _, key := range u.keys() {
		e.units[key] = u
	}
	return true
}

func (e *events) drop(u *unit) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.units[u.name] != u {
		return false
	}
	for _, key := range u.keys() {
		delete(e.units, key)
	}
	return true
}

// keys are the names by which signals speak of u. The prefix keeps a machine
// called "x.service" apart from the unit of a machine called "x".
func (u *unit) keys() []string { return []string{u.name, string(u.path), "machine:" + u.machine} }

func (e *events) find(key string) *unit {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.units[key]
}

func (e *events) lose() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost = true
	for _, u := range e.units {
		u.update(func(s *unitState) { s.lost = true })
	}
}

func (e *events) dispatch(s *dbus.Signal) {
	switch s.Name {
	case "org.freedesktop.DBus.Properties.PropertiesChanged":
		var iface string
		var props map[string]dbus.Variant
		if u := e.find(string(s.Path)); u != nil && len(s.Body) >= 2 && dbus.Store(s.Body[:2], &iface, &props) == nil {
			u.update(func(st *unitState) { st.absorb(props) })
		}
	case systemdName + managerPart + "UnitRemoved":
		e.mark(s, "", func(st *unitState) { st.forgotten = true })
	case machinedName + managerPart + "MachineNew":
		e.mark(s, "machine:", func(st *unitState) { st.registered = true })
	case machinedName + managerPart + "MachineRemoved":
		e.mark(s, "machine:", func(st *unitState) { st.removed = true })
	}
}

// mark applies change to the unit that a signal of signature "so" names.
func (e *events) mark(s *dbus.Signal, prefix string, change func(*unitState)) {
	var name string
	var path dbus.ObjectPath
	if dbus.Store(s.Body, &name, &path) != nil {
		return
	}
	if u := e.find(prefix + name); u != nil {
		u.update(change)
	}
}

// absorb takes over the properties that matter; a property of an unexpected
// type counts as not sent.
func (s *unitState) absorb(props map[string]dbus.Variant) {
	for name, to := range map[string]any{
		"ActiveState":    &s.active,
		"Result":         &s.result,
		"ExecMainCode":   &s.code,
		"ExecMainStatus": &s.status,
	} {
		if v, ok := props[name]; ok {
			_ = v.Store(to)
		}
	}
}

func (u *unit) update(change func(*unitState)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change(&u.state)
	close(u.changed)
	u.changed = make(chan struct{})
}

// snapshot returns the state now and a channel that closes at its next change.
func (u *unit) snapshot() (unitState, <-chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state, u.changed
}
