package machined

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestStartFailures(t *testing.T) {
	h := openTestHost(t)
	empty := t.TempDir() + "/empty.raw"
	if err := os.WriteFile(empty, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	image := makeImage(t, false)
	missingCommand := payloadContainer(t, image, "args")
	missingCommand.Binds[0].Source = "/nonexistent"
	for _, tc := range []struct {
		name   string
		c      Container
		stderr string // part of what systemd-nspawn says
	}{
		{"missing image", payloadContainer(t, "/nonexistent.raw", "args"), "/nonexistent.raw"},
		{"no filesystem", payloadContainer(t, empty, "args"), "partition"},
		{"missing bind source", missingCommand, "/nonexistent"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run, err := start(t, h, tc.c)
			var exit *ExitError
			if !errors.As(err, &exit) || exit.Ready || exit.Status != 1 {
				t.Errorf("Start() = %v, want an ExitError before ready with status 1", err)
			}
			if got := run.stderr.String(); !strings.Contains(got, tc.stderr) {
				t.Errorf("stderr = %q, want it to mention %q", got, tc.stderr)
			}
			assertGone(t, h, tc.c.Name)
		})
	}
}

func TestContainerCheck(t *testing.T) {
	h := openTestHost(t)
	for want, c := range map[string]Container{
		"name":       {Name: "under_score", Image: "/x.raw", Command: []string{"/x"}},
		"64 bytes":   {Name: strings.Repeat("a", 65), Image: "/x.raw", Command: []string{"/x"}},
		"image":      {Name: "a", Image: "x.raw", Command: []string{"/x"}},
		"no command": {Name: "a", Image: "/x.raw"},
		"bind":       {Name: "a", Image: "/x.raw", Command: []string{"/x"}, Binds: []Bind{{"x", "/y"}}},
	} {
		if _, err := h.Start(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Start(%+v) = %v, want it to mention %q", c, err, want)
		}
	}
}

// A cancelled start must leave no container behind, whenever it is cancelled,
// and not take long: somebody has pressed ^C.
func TestStartCancelled(t *testing.T) {
	h := openTestHost(t)
	image := makeImage(t, true)
	for after := time.Duration(0); after < 120*time.Millisecond; after += 10 * time.Millisecond {
		c := payloadContainer(t, image, "sleep")
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

// systemd-nspawn that is told to end tries for seconds to detach its loop device
// while that is in use elsewhere, as it often is for a moment after the start.
func TestTerminateWithBusyLoop(t *testing.T) {
	h := openTestHost(t)
	image := makeImage(t, true)
	run := mustStart(t, h, payloadContainer(t, image, "sleep"))
	for _, loop := range loopsOf(t, image) {
		f, err := os.Open("/dev/" + loop)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	begun := time.Now()
	if err := run.machine.Terminate(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %v to end", took)
	}
}

func TestHostDiesUnderContainer(t *testing.T) {
	h := openTestHost(t)
	run := mustStart(t, h, payloadContainer(t, makeImage(t, false), "sleep"))
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
	if _, err := h.Start(t.Context(), payloadContainer(t, "/x.raw", "args")); !errors.Is(err, ErrHostDown) {
		t.Errorf("Start() on a closed host = %v, want ErrHostDown", err)
	}
}
