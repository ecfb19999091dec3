package machined

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestContainerRuns(t *testing.T) {
	h := openTestHost(t)
	c := payloadContainer(t, makeTree(t), "copy")
	run := mustStart(t, h, c)
	if known, err := run.machine.known(t.Context()); err != nil || !known {
		t.Errorf("machined knows %s = %v, %v", c.Name, known, err)
	}
	fmt.Fprint(run.stdin, "there and back")
	_ = run.stdin.Close()
	begun := time.Now()
	if err := run.machine.Wait(t.Context()); err != nil {
		t.Errorf("Wait() = %v\nstderr: %s", err, run.stderr)
	}
	t.Logf("Wait took %v", time.Since(begun).Round(time.Millisecond))
	if got := run.stdout.String(); got != "there and back" {
		t.Errorf("stdout = %q", got)
	}
	if got := run.stderr.String(); got != "" {
		t.Errorf("stderr = %q", got)
	}
	assertGone(t, h, c.Name)
}

// The status of the command is that of the unit, and 255 is what systemd-nspawn makes
// of a signal.
func TestExitStatus(t *testing.T) {
	h := openTestHost(t)
	tree := makeTree(t)
	for want, command := range map[int][]string{42: {"exit", "42"}, 255: {"die"}} {
		c := payloadContainer(t, tree, command...)
		err := mustStart(t, h, c).machine.Wait(t.Context())
		var exit *ExitError
		if !errors.As(err, &exit) || *exit != (ExitError{Unit: c.Name + ".service", Ready: true, Result: "exit-code", Status: want}) {
			t.Errorf("%v: Wait() = %#v, want exit status %d", command, err, want)
		}
		assertGone(t, h, c.Name)
	}
}

func TestTerminate(t *testing.T) {
	h := openTestHost(t)
	c := payloadContainer(t, makeTree(t), "sleep")
	run := mustStart(t, h, c)

	if _, err := h.Start(t.Context(), c); !errors.Is(err, ErrExists) {
		t.Errorf("Start() of the same name = %v, want ErrExists", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- run.machine.Wait(t.Context()) }()

	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as in a defer after an interrupt
	begun := time.Now()
	if err := run.machine.Terminate(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("Terminate took %v", time.Since(begun).Round(time.Millisecond))
	assertGone(t, h, c.Name)
	if err := <-waited; errors.Is(err, ErrHostDown) {
		t.Errorf("Wait() = %v during Terminate", err)
	}
	if err := run.machine.Terminate(ctx); err != nil {
		t.Errorf("second Terminate() = %v", err)
	}
	again := mustStart(t, h, c) // the name is free again
	if err := again.machine.Terminate(ctx); err != nil {
		t.Error(err)
	}
}
