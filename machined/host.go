package machined

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Mode says where a host comes from.
type Mode string

// The modes of [Open].
const (
	Auto    Mode = "auto"    // System where that works, else Private
	System  Mode = "system"  // the machine's own systemd
	Private Mode = "private" // one of our own, in namespaces, that ends with us
)

// Options say how to open a host.
type Options struct {
	// Mode chooses the host; "" is Auto.
	Mode Mode
	// Init is the command line, absolute path first, that makes the calling
	// program call [InitPrivateHost]: {"/proc/self/exe", "private-host"}.
	// Only a private host needs it. Paths are put behind it.
	Init []string
	// Paths are the directories and files of the machine that the containers
	// of a private host need: those with their trees, launchers and bind sources. They
	// are absolute, without symbolic links. A private host sees these, with
	// what was mounted below them when it was opened, and the machine's
	// programs. Filesystems that are mounted there stay busy until it is closed.
	Paths []string
	// Log, if not nil, receives the log of a private host, a line at a time.
	Log io.Writer
}

// Host is a running systemd with machined. Its methods may be called from
// several goroutines at once.
type Host struct {
	mode    Mode
	version int
	conns   *conns
	events  *events
	private *private // nil for the machine's own

	closing  sync.Once
	closeErr error
}

// Open finds or starts a host.
//
// The error is a [*MissingError] when the machine lacks something, and nothing
// has been touched then. A private host that does not come up within ten
// seconds is killed, and the error carries the end of its log.
func Open(ctx context.Context, o Options) (*Host, error) {
	switch o.Mode {
	case Auto, "":
		if h, err := openSystem(ctx); err == nil {
			return h, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("open host: %w", err)
		}
		return openPrivate(ctx, o)
	case System:
		found := make(chan []Check, 1) // meanwhile: asking systemd-nspawn for its version takes as long
		go func() { found <- commonChecks(ctx) }()
		h, err := openSystem(ctx)
		checks := <-found
		if err != nil {
			checks = append(checks, Check{Name: "running systemd with machined", Mode: System, Err: err,
				Mend: "use a private host, or install systemd-container on a machine that runs systemd"})
		}
		if err := missing(System, checks); err != nil {
			if h != nil {
				_ = h.Close()
			}
			return nil, err
		}
		return h, nil
	case Private:
		return openPrivate(ctx, o)
	}
	return nil, fmt.Errorf("open host: unknown mode %q", o.Mode)
}

// Mode tells which host was opened: System or Private.
func (h *Host) Mode() Mode { return h.mode }

// Version is the major version of the host's systemd, such as 252.
func (h *Host) Version() int { return h.version }

// PID is the process id of a private host's PID 1 as the caller sees it, for
// entering its namespaces with nsenter(1). It is 0 for the machine's own.
func (h *Host) PID() int {
	if h.private == nil {
		return 0
	}
	return h.private.cmd.Process.Pid
}

// Close ends a private host with everything that runs in it, or lets go of the
// machine's own. Closing twice is harmless.
func (h *Host) Close() error {
	h.closing.Do(func() {
		h.conns.close()
		if h.private != nil {
			if err := h.private.kill(); err != nil {
				h.closeErr = fmt.Errorf("close private host: %w", err)
			}
		}
	})
	return h.closeErr
}

// openSystem opens the machine's own host if there is one. The test for it is
// that of sd_booted(3), then that everything answers.
func openSystem(ctx context.Context) (*Host, error) {
	if _, err := os.Lstat("/run/systemd/system"); err != nil {
		return nil, fmt.Errorf("the machine was not booted with systemd: %w", err)
	}
	return newHost(ctx, System, "", nil)
}

func openPrivate(ctx context.Context, o Options) (*Host, error) {
	if len(o.Init) == 0 || !filepath.IsAbs(o.Init[0]) {
		return nil, errors.New("open private host: Options.Init is not a command line with an absolute path")
	}
	for _, path := range o.Paths {
		if !filepath.IsAbs(path) || filepath.Clean(path) == "/" {
			return nil, fmt.Errorf("open private host: path %q: want an absolute path below the root directory", path)
		}
	}
	lacks := missing(Private, slices.Concat(commonChecks(ctx), privateChecks()))
	if err := ctx.Err(); err != nil { // it fails checks too
		return nil, fmt.Errorf("open private host: %w", err)
	}
	if lacks != nil {
		return nil, lacks
	}
	p, err := startPrivate(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open private host: %w", err)
	}
	h, err := newHost(ctx, Private, fmt.Sprintf("/proc/%d/root", p.cmd.Process.Pid), p)
	if err != nil {
		return nil, fmt.Errorf("open private host: %w", p.fail(err))
	}
	return h, nil
}

// newHost connects to the host whose root directory is root and makes sure
// that PID 1 and machined answer. On error the private host p still lives.
func newHost(ctx context.Context, mode Mode, root string, p *private) (_ *Host, err error) {
	h := &Host{mode: mode, private: p}
	if h.conns, err = connect(ctx, root); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			h.conns.close()
		}
	}()
	if h.events, err = follow(ctx, h.conns); err != nil {
		return nil, err
	}
	var version string
	manager := h.conns.bus.Object(systemdName, systemdPath)
	err = property(ctx, manager, systemdName+".Manager", "Version", &version)
	if err != nil {
		return nil, callError(err, "ask systemd for its version")
	}
	if h.version, err = parseVersion(version); err != nil {
		return nil, err
	}
	if _, err = h.PoolPath(ctx); err != nil { // starts machined where it is not running
		return nil, err
	}
	return h, nil
}
