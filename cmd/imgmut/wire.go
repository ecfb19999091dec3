package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/imgmut/imgmut/machined"
	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/store"
)

// wire joins machined to the engine; neither knows the other. It opens the
// host when it is first needed, and closes it.
type wire struct {
	mode machined.Mode
	log  *slog.Logger

	mu   sync.Mutex
	host *machined.Host
	err  error // why there is none: it is not tried again
}

func newWire(mode string, log *slog.Logger) (*wire, error) {
	switch m := machined.Mode(mode); m {
	case machined.Auto, machined.System, machined.Private:
		return &wire{mode: m, log: log}, nil
	}
	return nil, fmt.Errorf("--host %s: want auto, system or private", mode)
}

func (w *wire) engine(s *store.Store, events func(mutate.Event)) (*mutate.Engine, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return &mutate.Engine{
		Store: s, Agent: exe, Version: version(),
		Host:   func(ctx context.Context) (mutate.Host, error) { return w.open(ctx, exe) },
		Events: events, Now: time.Now, Proxy: http.ProxyFromEnvironment,
	}, nil
}

// open opens the host once for the whole run. All that a private one sees of the
// machine, beside its programs, is exe.
func (w *wire) open(ctx context.Context, exe string) (mutate.Host, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.host == nil && w.err == nil {
		started := time.Now()
		w.host, w.err = machined.Open(ctx, machined.Options{
			Mode: w.mode, Init: []string{"/proc/self/exe", privateHostArg}, Paths: []string{exe}, Log: hostLog{w.log},
		})
		if w.err == nil {
			w.log.Info("host is up", "mode", w.host.Mode(), "systemd", w.host.Version(), "took", time.Since(started))
		}
	}
	if w.err != nil {
		return nil, w.err // and not a host that is nil inside
	}
	return host{w.host, exe}, nil
}

// hostLog takes the lines that a private host logs into the program's own log.
type hostLog struct{ *slog.Logger }

// Write implements [io.Writer] for one line at a time.
func (l hostLog) Write(line []byte) (int, error) {
	l.Debug("host", "line", strings.TrimSpace(string(line)))
	return len(line), nil
}

// end begins to close the host, of which nothing will be asked any more but what is known
// of it.
func (w *wire) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.host != nil {
		go w.host.Close() // close waits for it, and gives its error
	}
}

func (w *wire) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.host == nil {
		return nil
	}
	err := w.host.Close()
	w.host = nil
	return err
}

// host is a machined.Host in the engine's words.
type host struct {
	*machined.Host
	exe string // imgmut, which is a guest's agent, and makes its tree
}

// Start implements [guest.Host].
func (h host) Start(ctx context.Context, s guest.Spec) (guest.Machine, error) {
	// Below the directory of the unit, which ends with it.
	tree := "/run/" + s.Name + "/tree"
	c := machined.Container{
		Name: s.Name, Directory: tree, RuntimeDirectory: s.Name, Launcher: []string{h.exe, treeArg, tree},
		ReadOnly: s.ReadOnly, UserShift: s.Users.Shift, Users: s.Users.Size, PrivateNetwork: !s.Network,
		Command: s.Command, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr,
		Environment: []string{
			// It would follow a link, and hide what the image has there. The agent does not.
			"SYSTEMD_NSPAWN_TMPFS_TMP=0",
			// It would compile a filter of system calls, which takes a third of the start. The
			// agent has one for commands.
			"SYSTEMD_SECCOMP=0",
		},
	}
	for target, source := range s.Binds {
		c.Binds = append(c.Binds, machined.Bind{Source: source, Target: target})
	}
	if c.Devices = s.Devices; s.Lent {
		c.Binds = append(c.Binds, machined.Bind{Source: mount.LentDir(tree), Target: agent.LentDir, Writable: true})
	}
	if !s.Users.None() {
		// For the loopback interface of the steps' own network namespaces. The
		// machine's network belongs to the machine's user namespace, so there
		// it means nothing.
		c.AddCapabilities = append(c.AddCapabilities, "CAP_NET_ADMIN")
	}
	m, err := h.Host.Start(ctx, c)
	if err != nil {
		return nil, err // and not a *machined.Machine that is nil inside
	}
	return m, nil
}
