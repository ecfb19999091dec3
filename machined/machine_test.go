package machined

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
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

// payloadContainer is a container over image that runs the payload.
func payloadContainer(t *testing.T, image string, command ...string) Container {
	t.Helper()
	payload, err := buildPayload()
	if err != nil {
		t.Fatal(err)
	}
	return Container{
		Name:    "imgmut-test-" + rand.Text(),
		Image:   image,
		Command: append([]string{agentPath}, command...),
		Binds:   []Bind{{payload, agentPath}},
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

func TestContainerRuns(t *testing.T) {
	h := openTestHost(t)
	for _, layout := range []string{"bare", "partitioned"} {
		t.Run(layout, func(t *testing.T) {
			c := payloadContainer(t, makeImage(t, layout == "partitioned"), "copy")
			run := mustStart(t, h, c)
			if run.machine.Leader() <= 0 {
				t.Errorf("Leader() = %d", run.machine.Leader())
			}
			root, err := run.machine.Root(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			entries, err := root.ReadDir(-1)
			if err != nil || !strings.Contains(fmt.Sprint(entries), "etc/") {
				t.Errorf("Root() lists %v, %v, want etc", entries, err)
			}
			_ = root.Close()
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
			if _, err := run.machine.Root(t.Context()); !errors.Is(err, ErrNoMachine) {
				t.Errorf("Root() after the end = %v, want ErrNoMachine", err)
			}
		})
	}
}

// A container may have much of the machine's memory, and not all.
func TestMemoryIsBounded(t *testing.T) {
	h := openTestHost(t)
	c := payloadContainer(t, makeImage(t, false), "copy")
	run := mustStart(t, h, c)
	var machine unix.Sysinfo_t
	if err := unix.Sysinfo(&machine); err != nil {
		t.Fatal(err)
	}
	total := machine.Totalram * uint64(machine.Unit)
	var limit uint64
	unit := h.conns.bus.Object(systemdName, systemdPath+"/unit/"+dbus.ObjectPath(sd.PathBusEscape(c.Name+".service")))
	if err := property(t.Context(), unit, systemdName+".Service", "MemoryMax", &limit); err != nil {
		t.Fatal(err)
	}
	if limit < 1<<20 || limit > total/100*76 { // less than three quarters where something bounds the machine
		t.Errorf("MemoryMax is %d, the machine has %d", limit, total)
	}
	_ = run.stdin.Close()
	if err := run.machine.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

// A distribution's image, as its users have it: a GPT disk with an ESP and a
// root partition of the generic type.
func TestRealImage(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Systemd, fixtures.Tools)
	image := filepath.Join(t.TempDir(), "work.raw")
	fixtures.Clone(t, fixtures.Image(t, "debian-12"), image)
	runTool(t, "", "sgdisk", "-A", "1:set:1", image) // no ESP: not every kernel has vfat
	h := openTestHost(t)
	c := payloadContainer(t, image)
	c.PrivateUsers = true
	c.Command = []string{"/bin/sh", "-c", "useradd tester && getent passwd tester && echo $0 >&2", "$HOME"}
	run := mustStart(t, h, c)
	if err := run.machine.Wait(t.Context()); err != nil {
		t.Errorf("Wait() = %v, stderr %q", err, run.stderr)
	}
	if got := run.stdout.String(); !strings.HasPrefix(got, "tester:x:1000:") {
		t.Errorf("stdout = %q", got)
	}
	if got := run.stderr.String(); got != "$HOME\n" {
		t.Errorf("stderr = %q", got)
	}
}

// A command's words must reach it as they are: PID 1 would expand variables.
func TestCommandIsNotExpanded(t *testing.T) {
	h := openTestHost(t)
	words := []string{"$HOME", "${PATH}", "%n", "$$", "two words", `back\slash`, "-x", "--", ""}
	run := mustStart(t, h, payloadContainer(t, makeImage(t, false), append([]string{"args"}, words...)...))
	if err := run.machine.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := run.stdout.String(), strings.Join(words, "\n"); got != want {
		t.Errorf("the command saw %q, want %q", got, want)
	}
}

func TestExitStatus(t *testing.T) {
	h := openTestHost(t)
	c := payloadContainer(t, makeImage(t, false), "exit", "42")
	err := mustStart(t, h, c).machine.Wait(t.Context())
	var exit *ExitError
	want := ExitError{Unit: c.Name + ".service", Ready: true, Result: "exit-code", Status: 42}
	if !errors.As(err, &exit) || *exit != want {
		t.Errorf("Wait() = %#v, want exit status 42", err)
	}
	assertGone(t, h, c.Name)
}

func TestTerminate(t *testing.T) {
	h := openTestHost(t)
	c := payloadContainer(t, makeImage(t, false), "sleep")
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

func TestReadOnly(t *testing.T) {
	h := openTestHost(t)
	image := makeImage(t, false)
	for _, readOnly := range []bool{false, true} {
		c := payloadContainer(t, image, "write", "/root/file")
		c.ReadOnly = readOnly
		run := mustStart(t, h, c)
		err := run.machine.Wait(t.Context())
		if refused := err != nil && strings.Contains(run.stderr.String(), "read-only file system"); refused != readOnly {
			t.Errorf("ReadOnly %v: Wait() = %v, stderr %q", readOnly, err, run.stderr)
		}
	}
}

func TestPrivateUsers(t *testing.T) {
	h := openTestHost(t)
	image := makeImage(t, true)
	for _, private := range []bool{false, true} {
		c := payloadContainer(t, image, "cat", "/proc/self/uid_map")
		c.PrivateUsers = private
		run := mustStart(t, h, c)
		if err := run.machine.Wait(t.Context()); err != nil {
			t.Fatalf("Wait() = %v, stderr %q", err, run.stderr)
		}
		var inside, outside, count int64
		if _, err := fmt.Sscan(run.stdout.String(), &inside, &outside, &count); err != nil {
			t.Fatal(err)
		}
		if shifted := inside == 0 && outside >= 0x80000 && count == 0x10000; shifted != private {
			t.Errorf("PrivateUsers %v: uid_map %d %d %d", private, inside, outside, count)
		}
	}
}

func TestCapabilities(t *testing.T) {
	h := openTestHost(t)
	c := payloadContainer(t, makeImage(t, false), "cat", "/proc/self/status")
	c.AddCapabilities = []string{"CAP_NET_ADMIN"}
	c.DropCapabilities = []string{"CAP_MKNOD", "CAP_SYS_PTRACE"}
	run := mustStart(t, h, c)
	if err := run.machine.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(run.stdout.String(), "CapEff:")
	var set uint64
	if _, err := fmt.Sscanf(rest, "%x", &set); err != nil {
		t.Fatal(err)
	}
	// Numbers from linux/capability.h.
	for bit, want := range map[int]bool{12: true, 27: false, 19: false, 22: false, 0: true} {
		if got := set&(1<<bit) != 0; got != want {
			t.Errorf("capability %d = %v, want %v (set %x)", bit, got, want, set)
		}
	}
}

// The unit's environment is for systemd-nspawn and goes no further.
func TestEnvironment(t *testing.T) {
	h := openTestHost(t)
	image := makeImage(t, false)
	read := func(path string) string {
		c := payloadContainer(t, image, "cat", path)
		c.Environment = []string{"SYSTEMD_NSPAWN_TMPFS_TMP=0", "IMGMUT_TEST=leaked"}
		run := mustStart(t, h, c)
		if err := run.machine.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		return run.stdout.String()
	}
	if got := read("/proc/self/mounts"); strings.Contains(got, " /tmp ") {
		t.Errorf("systemd-nspawn did not see its variable: /tmp is a mount in\n%s", got)
	}
	if got := read("/proc/self/environ"); strings.Contains(got, "leaked") || !strings.Contains(got, "container=") {
		t.Errorf("the command's environment is %q", got)
	}
}

// systemd-nspawn's messages are in English, whatever the machine speaks.
func TestLanguage(t *testing.T) {
	h := openTestHost(t)
	run := mustStart(t, h, payloadContainer(t, makeImage(t, false), "sleep"))
	environ := fmt.Sprintf("/proc/%d/root/proc/%d/environ", h.PID(), mainPID(t, h, run.machine.unit.name))
	got, err := os.ReadFile(environ)
	if err != nil || !strings.Contains("\x00"+string(got), "\x00LC_ALL=C\x00") {
		t.Errorf("systemd-nspawn's environment is %q, %v, want LC_ALL=C in it", got, err)
	}
}

func TestPrivateNetwork(t *testing.T) {
	h := openTestHost(t)
	image := makeImage(t, false)
	machine, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	for _, private := range []bool{false, true} {
		c := payloadContainer(t, image, "cat", "/proc/net/dev")
		c.PrivateNetwork = private
		run := mustStart(t, h, c)
		if err := run.machine.Wait(t.Context()); err != nil {
			t.Fatalf("Wait() = %v, stderr %q", err, run.stderr)
		}
		want := interfaces(string(machine))
		if private {
			want = []string{"lo"}
		}
		if got := interfaces(run.stdout.String()); !slices.Equal(got, want) {
			t.Errorf("PrivateNetwork %v: the container has %v, want %v", private, got, want)
		}
	}
}

// interfaces are the names in /proc/net/dev.
func interfaces(dev string) (names []string) {
	for line := range strings.Lines(dev) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	slices.Sort(names)
	return names
}

// Colons separate the parts of a bind; paths may contain them all the same.
func TestBindPaths(t *testing.T) {
	h := openTestHost(t)
	source := t.TempDir() + `/with:colon and\backslash`
	if err := os.WriteFile(source, []byte("bound"), 0o644); err != nil {
		t.Fatal(err)
	}
	const target = `/run/a:b\c d`
	c := payloadContainer(t, makeImage(t, false), "cat", target)
	c.Binds = append(c.Binds, Bind{source, target})
	run := mustStart(t, h, c)
	if err := run.machine.Wait(t.Context()); err != nil {
		t.Fatalf("Wait() = %v, stderr %q", err, run.stderr)
	}
	if got := run.stdout.String(); got != "bound" {
		t.Errorf("the container read %q", got)
	}
}
