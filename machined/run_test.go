package machined

import (
	"bytes"
	"crypto/rand"
	"io"
	"os"
	"testing"
	"time"
)

// agentPath is where tests see the payload in a container.
const agentPath = "/run/imgmut/agent"

// testRun is a container with pipes.
type testRun struct {
	machine        *Machine
	stdin          *os.File
	stdout, stderr *output
}

// output collects what a container writes until its last holder closes it.
type output struct {
	done chan struct{}
	buf  bytes.Buffer
}

func (o *output) String() string { <-o.done; return o.buf.String() }

func collect(t *testing.T) (*output, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	o := &output{done: make(chan struct{})}
	go func() {
		defer close(o.done)
		_, _ = io.Copy(&o.buf, r)
		_ = r.Close()
	}()
	return o, w
}

// payloadContainer is a container over tree that runs the payload.
func payloadContainer(t *testing.T, tree string, command ...string) Container {
	t.Helper()
	payload, err := buildPayload()
	if err != nil {
		t.Fatal(err)
	}
	return Container{
		Name:      "imgmut-test-" + rand.Text(),
		Directory: tree,
		Command:   append([]string{agentPath}, command...),
		Binds:     []Bind{{Source: payload, Target: agentPath}},
	}
}

// start starts c with pipes and hands its error back.
func start(t *testing.T, h *Host, c Container) (*testRun, error) {
	t.Helper()
	stdin, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	run := &testRun{stdin: w}
	c.Stdin = stdin
	run.stdout, c.Stdout = collect(t)
	run.stderr, c.Stderr = collect(t)
	begun := time.Now()
	run.machine, err = h.Start(t.Context(), c)
	t.Logf("Start took %v", time.Since(begun).Round(time.Millisecond))
	for _, f := range []*os.File{stdin, c.Stdout, c.Stderr} {
		_ = f.Close()
	}
	t.Cleanup(func() {
		_ = w.Close()
		if run.machine != nil {
			if err := run.machine.Terminate(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	return run, err
}

// mustStart is start for a container that is expected to start.
func mustStart(t *testing.T, h *Host, c Container) *testRun {
	t.Helper()
	run, err := start(t, h, c)
	if err != nil {
		t.Fatalf("%v\nstderr: %s", err, run.stderr)
	}
	return run
}

// assertGone checks with PID 1 and machined that nothing is left of a machine.
func assertGone(t *testing.T, h *Host, name string) {
	t.Helper()
	m := &Machine{host: h, unit: &unit{name: name + ".service", machine: name}}
	if ended, err := m.ended(t.Context()); err != nil || !ended {
		t.Errorf("unit of %s is gone = %v, %v", name, ended, err)
	}
	if known, err := m.known(t.Context()); err != nil || known {
		t.Errorf("machined knows %s = %v, %v", name, known, err)
	}
}
