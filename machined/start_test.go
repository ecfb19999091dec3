package machined

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestStartFailures(t *testing.T) {
	h := openTestHost(t)
	tree := makeTree(t)
	missingBind := payloadContainer(t, tree, "args")
	missingBind.Binds[0].Source = "/nonexistent"
	missingLauncher, badLauncher := payloadContainer(t, tree, "args"), payloadContainer(t, tree, "args")
	missingLauncher.Launcher = []string{"/nonexistent"}
	badLauncher.Launcher = []string{"/bin/sh", "-c", "echo no mounts >&2; exit 7"}
	for _, tc := range []struct {
		name   string
		c      Container
		status int
		fault  string
		stderr string // part of what systemd-nspawn, or the launcher, says
	}{
		{"missing directory", payloadContainer(t, "/nonexistent", "args"), 1, "image", "/nonexistent"},
		{"no tree", payloadContainer(t, t.TempDir(), "args"), 1, "image", "OS tree"},
		{"missing bind source", missingBind, 1, "image", "/nonexistent"},
		{"missing launcher", missingLauncher, 203, "", ""}, // EXIT_EXEC of systemd.exec(5)
		{"launcher fails", badLauncher, 7, "", "no mounts"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run, err := start(t, h, tc.c)
			var exit *ExitError
			if !errors.As(err, &exit) || exit.Ready || exit.Status != tc.status || exit.Fault() != tc.fault {
				t.Errorf("Start() = %v, want an ExitError before ready with status %d and fault %q", err, tc.status, tc.fault)
			}
			if got := run.stderr.String(); !strings.Contains(got, tc.stderr) {
				t.Errorf("stderr = %q, want it to mention %q", got, tc.stderr)
			}
			assertGone(t, h, tc.c.Name)
		})
	}
}

// A cancelled start must leave no container behind, whenever it is cancelled,
// and not take long: somebody has pressed ^C.
func TestStartCancelled(t *testing.T) {
	h := openTestHost(t)
	tree := makeTree(t)
	for after := time.Duration(0); after < 120*time.Millisecond; after += 10 * time.Millisecond {
		c := payloadContainer(t, tree, "sleep")
		ctx, cancel := context.WithTimeout(t.Context(), after)
		begun := time.Now()
		m, err := h.Start(ctx, c)
		cancel()
		switch {
		case err == nil: // it was faster
			if err := m.Terminate(t.Context()); err != nil {
				t.Error(err)
			}
		case !errors.Is(err, context.DeadlineExceeded):
			t.Errorf("Start() cancelled after %v = %v", after, err)
		}
		if took := time.Since(begun) - after; h.Mode() == Private && took > time.Second {
			t.Errorf("cancelled after %v, it took %v to end", after, took)
		}
		assertGone(t, h, c.Name)
	}
}

func TestHostDiesUnderContainer(t *testing.T) {
	h := openTestHost(t)
	run := mustStart(t, h, payloadContainer(t, makeTree(t), "sleep"))
	waited := make(chan error, 1)
	go func() { waited <- run.machine.Wait(t.Context()) }()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; !errors.Is(err, ErrHostDown) {
		t.Errorf("Wait() = %v, want ErrHostDown", err)
	}
	if got := run.stdout.String(); got != "sleeping\n" && got != "" { // it ends only when all of the container is gone
		t.Errorf("stdout = %q", got)
	}
	if _, err := h.Start(t.Context(), payloadContainer(t, "/x", "args")); !errors.Is(err, ErrHostDown) {
		t.Errorf("Start() on a closed host = %v, want ErrHostDown", err)
	}
}
