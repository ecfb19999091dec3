package machined

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
)

// insideVariable is set for a test binary that runs inside a systemd host, to
// its working directory. There openTestHost opens the machine's own host.
const insideVariable = "IMGMUT_TEST_INSIDE"

// inHost returns a command that runs inside the private host h: it sees h as
// the machine that it is on.
func inHost(t *testing.T, h *Host, argv ...string) *exec.Cmd {
	return exec.CommandContext(t.Context(), "nsenter", append([]string{"--target", strconv.Itoa(h.PID()),
		"--mount", "--pid", "--ipc", "--uts", "--cgroup", "--"}, argv...)...)
}

// runInside runs tests of this package inside a private host of their own.
func runInside(t *testing.T, tests string) {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Systemd)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	o := testOptions(t, &log)
	o.Paths = append(o.Paths, dir)
	h, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := buildPayload() // it was for testOptions
	cmd := inHost(t, h, exe, "-test.v", "-test.count=1", "-test.run", tests)
	cmd.Env = append(os.Environ(), insideVariable+"="+dir, payloadVariable+"="+payload)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		t.Logf("the host's log:\n%s", &log)
	}
}

// The machine's own systemd is tested by what the private one is tested by.
func TestSystemHost(t *testing.T) {
	runInside(t, "^("+strings.Join([]string{
		"TestContainerRuns", "TestExitStatus", "TestTerminate", "TestStartFailures", "TestStartCancelled",
		"TestImages", "TestPrivateUsers", "TestBindPaths", "TestNothingIsLeft", "TestLauncher", "TestDevices", "TestOwnDevices",
	}, "|")+")$")
}

func TestSystemHostLosesBus(t *testing.T) {
	runInside(t, "^TestBusDies$")
}

// When the bus dies the machine's PID 1 lives on, and so does the container.
func TestBusDies(t *testing.T) {
	if os.Getenv(insideVariable) == "" {
		t.Log("runs as part of TestSystemHostLosesBus")
		return
	}
	h := openTestHost(t)
	stdout, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	c := payloadContainer(t, makeTree(t), "sleep")
	c.Stdout = w
	m, err := h.Start(t.Context(), c)
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	if err := unix.Kill(mainPID(t, h, "dbus.service"), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := m.Wait(t.Context()); !errors.Is(err, ErrHostDown) {
		t.Errorf("Wait() = %v, want ErrHostDown", err)
	}
	_ = stdout.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := stdout.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the container did not outlive the bus: %v", err)
	}
	if err := m.Terminate(t.Context()); err != nil {
		t.Error(err)
	}
	_ = stdout.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := stdout.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after Terminate the container has its output open: %v", err)
	}
}

// mainPID is the process id of a service's main process.
func mainPID(t *testing.T, h *Host, service string) int {
	t.Helper()
	var pid uint32
	object := h.conns.bus.Object(systemdName, systemdPath+"/unit/"+dbus.ObjectPath(sd.PathBusEscape(service)))
	if err := property(t.Context(), object, systemdName+".Service", "MainPID", &pid); err != nil {
		t.Fatal(err)
	}
	return int(pid)
}

// On a machine without systemd Auto is a private host and System says why not.
func TestModeChoice(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Systemd)
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Skip("this machine was booted with systemd")
	}
	h, err := Open(t.Context(), Options{Init: initCommand})
	if err != nil {
		t.Fatal(err)
	}
	if h.Mode() != Private {
		t.Errorf("Auto opened %v", h.Mode())
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	_, err = Open(t.Context(), Options{Mode: System})
	var missing *MissingError
	if !errors.As(err, &missing) || !errors.Is(err, errors.ErrUnsupported) || missing.Checks[0].Mend == "" {
		t.Errorf("Open(System) = %v, want a MissingError with a mend", err)
	}
}
