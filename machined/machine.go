package machined

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

const (
	// settleTime is how long the last signal about an ended unit or machine
	// may take before the host is asked instead.
	settleTime = 2 * time.Second
	// stopTimeout bounds Terminate. PID 1 itself kills after ten seconds.
	stopTimeout = 25 * time.Second
)

// Machine is a running container that [Host.Start] started. The caller owns
// it: it calls [Machine.Wait] once the command is to end, and defers
// [Machine.Terminate].
type Machine struct {
	host *Host
	unit *unit

	mu   sync.Mutex  // serialises Terminate
	over atomic.Bool // nothing is left, so Terminate has nothing to do
}

// Start starts a container and returns when it is up: registered with
// machined, its command started or about to be.
//
// It is an [*ExitError] when the launcher fails or systemd-nspawn refuses the tree,
// and [ErrExists] when the name is taken. On error, also that of ctx, nothing is left
// running.
func (h *Host) Start(ctx context.Context, c Container) (*Machine, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("start container: %w", err)
	}
	nspawn, err := findProgram(nspawnPaths)
	if err != nil {
		return nil, fmt.Errorf("start container %s: %w", c.Name, err)
	}
	u, err := h.events.watch(ctx, c.Name)
	if err != nil {
		return nil, fmt.Errorf("start container %s: %w", c.Name, err)
	}
	m := &Machine{host: h, unit: u}
	created, err := m.start(ctx, &c, nspawn)
	if err == nil {
		return m, nil
	}
	if created {
		err = errors.Join(err, m.Terminate(ctx))
	}
	h.events.forget(u)
	return nil, err
}

// start runs the unit's start job. created is whether there may be a unit now.
func (m *Machine) start(ctx context.Context, c *Container, nspawn string) (created bool, err error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	done := make(chan string, 1) // go-systemd blocks on it, holding a lock
	props := c.properties(nspawn)
	_, err = m.host.conns.jobs.StartTransientUnitContext(call, m.unit.name, "fail", props, done)
	runtime.KeepAlive(c) // the descriptors are open until they have been sent
	if err != nil {
		// A refusal created nothing. Anything else leaves it open.
		var refused dbus.Error
		return !errors.As(err, &refused), callError(err, "start %s", m.unit.name)
	}
	for {
		state, changed := m.unit.snapshot()
		if state.lost {
			return true, fmt.Errorf("start %s: %w", m.unit.name, ErrHostDown)
		}
		select {
		case result := <-done:
			if result != "done" {
				return true, m.startFailed(ctx, result)
			}
			m.unit.update(func(s *unitState) { s.registered = true })
			return true, nil
		case <-changed:
		case <-ctx.Done():
			return true, fmt.Errorf("start %s: %w", m.unit.name, context.Cause(ctx))
		}
	}
}

// startFailed waits for the word on why the start job failed.
func (m *Machine) startFailed(ctx context.Context, job string) error {
	if err := m.waitUnit(ctx); err != nil {
		return err
	}
	if err := m.exitError(false); err != nil {
		return err
	}
	return fmt.Errorf("start %s: job %s", m.unit.name, job)
}

// Wait returns when machined has removed the machine and the unit is gone. It
// is an [*ExitError] if the container ended with anything but status 0, and
// [ErrHostDown] if the host went away.
//
// A nil error does not prove that Command did its work: let it say so itself.
// The kernel may take a moment more to let go of what was mounted there.
func (m *Machine) Wait(ctx context.Context) error {
	if err := m.waitUnit(ctx); err != nil {
		return err
	}
	if err := m.waitMachine(ctx); err != nil {
		return err
	}
	m.forget()
	return m.exitError(true)
}

// Terminate stops the container, kills what does not stop, and returns when
// unit and machine are gone. It is for defer: it does nothing after Wait or a
// second time, and the end of ctx does not stop it; it ends after 25 s.
func (m *Machine) Terminate(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	state, _ := m.unit.snapshot()
	if state.lost {
		return m.stopAfterLoss(ctx)
	}
	if ended, err := m.ended(ctx); err == nil && ended {
		return m.settled(ctx)
	}
	_, err := m.host.conns.jobs.StopUnitContext(ctx, m.unit.name, "replace", nil)
	err = callError(err, "stop %s", m.unit.name)
	switch {
	case errors.Is(err, ErrHostDown):
		return m.stopAfterLoss(ctx)
	case err != nil && !errors.Is(err, errNoUnit):
		return err
	}
	return m.settled(ctx)
}

// stopAfterLoss stops the unit when the bus is gone. A private host took it
// along; on the machine's own it goes on, and PID 1 can be asked directly.
func (m *Machine) stopAfterLoss(ctx context.Context) error {
	if m.host.mode == Private {
		return nil
	}
	jobs, err := sd.NewConnection(func() (*dbus.Conn, error) { return dial(ctx, systemdSocket, false) })
	if err != nil {
		return fmt.Errorf("stop %s: %w", m.unit.name, err)
	}
	defer jobs.Close()
	done := make(chan string, 1)
	_, err = jobs.StopUnitContext(ctx, m.unit.name, "replace", done)
	if err = callError(err, "stop %s", m.unit.name); err != nil {
		if errors.Is(err, errNoUnit) {
			return nil
		}
		return err
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w", m.unit.name, context.Cause(ctx))
	}
}

// settled waits for the end without judging it.
func (m *Machine) settled(ctx context.Context) error {
	err := m.waitUnit(ctx)
	if err == nil {
		err = m.waitMachine(ctx)
	}
	if errors.Is(err, ErrHostDown) {
		return m.stopAfterLoss(ctx)
	}
	if err == nil {
		m.forget()
	}
	return err
}

// forget ends the interest in a unit that is gone.
func (m *Machine) forget() {
	m.over.Store(true)
	m.host.events.forget(m.unit)
}

// exitError tells how the unit failed, nil if it did not.
func (m *Machine) exitError(ready bool) error {
	s, _ := m.unit.snapshot()
	if s.result == "" || s.result == "success" {
		return nil
	}
	const exited = 1 // CLD_EXITED of waitid(2); the others are signals
	return &ExitError{Unit: m.unit.name, Ready: ready, Result: s.result,
		Signal: s.code > exited, Status: int(s.status)}
}

// waitUnit waits until PID 1 has forgotten the unit.
func (m *Machine) waitUnit(ctx context.Context) error {
	for {
		s, changed := m.unit.snapshot()
		var settle <-chan time.Time
		switch {
		case s.lost:
			return fmt.Errorf("wait for %s: %w", m.unit.name, ErrHostDown)
		case s.forgotten:
			// Also sent at daemon-reload, for units that come back.
			if ended, err := m.ended(ctx); err != nil || ended {
				return err
			}
			m.unit.update(func(s *unitState) { s.forgotten = false })
			continue
		case s.active == "inactive" || s.active == "failed":
			settle = time.After(settleTime)
		}
		select {
		case <-changed:
		case <-settle:
			if ended, err := m.ended(ctx); err != nil || ended {
				return err
			}
			if done, err := m.reset(ctx); err != nil || done {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", m.unit.name, context.Cause(ctx))
		}
	}
}

// ended asks PID 1 whether it has forgotten the unit.
func (m *Machine) ended(ctx context.Context) (bool, error) {
	var path dbus.ObjectPath
	err := m.host.conns.callManager(ctx, "GetUnit", []any{m.unit.name}, &path)
	err = callError(err, "look up %s", m.unit.name)
	if errors.Is(err, errNoUnit) {
		return true, nil
	}
	return false, err
}

// reset makes PID 1 forget a unit that has ended but that something keeps
// loaded, such as another client's reference. It reports false for one that
// has not ended after all.
func (m *Machine) reset(ctx context.Context) (bool, error) {
	var active string
	object := m.host.conns.bus.Object(systemdName, m.unit.path)
	err := property(ctx, object, systemdName+".Unit", "ActiveState", &active)
	if err != nil {
		return false, callError(err, "ask for the state of %s", m.unit.name)
	}
	if active != "inactive" && active != "failed" {
		return false, nil
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = callError(m.host.conns.jobs.ResetFailedUnitContext(call, m.unit.name), "reset %s", m.unit.name)
	if errors.Is(err, errNoUnit) {
		err = nil
	}
	return true, err
}

// waitMachine waits until machined has removed the machine, which it does on
// hearing of the unit's end.
func (m *Machine) waitMachine(ctx context.Context) error {
	settle := time.After(settleTime)
	for {
		s, changed := m.unit.snapshot()
		switch {
		case s.lost:
			return fmt.Errorf("wait for %s: %w", m.unit.machine, ErrHostDown)
		case s.removed:
			return nil
		case !s.registered:
			// Never, or the start failed so late that the signal is on its
			// way: signals of different senders are not ordered.
			if known, err := m.known(ctx); err != nil || !known {
				return err
			}
			m.unit.update(func(s *unitState) { s.registered = true })
			continue
		}
		select {
		case <-changed:
		case <-settle:
			if known, err := m.known(ctx); err != nil || !known {
				return err
			}
			return fmt.Errorf("wait for %s: machined still has it %v after its unit ended", m.unit.machine, settleTime)
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", m.unit.machine, context.Cause(ctx))
		}
	}
}

// known asks machined whether it has the machine.
func (m *Machine) known(ctx context.Context) (bool, error) {
	var path dbus.ObjectPath
	err := m.host.conns.callMachined(ctx, "GetMachine", []any{m.unit.machine}, &path)
	err = callError(err, "look up %s", m.unit.machine)
	if errors.Is(err, errNoMachine) {
		return false, nil
	}
	return err == nil, err
}
