package machined

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
)

// The hidden arguments that make the test binary something else.
const (
	argInit   = "private-host" // process 1 of a private host
	argHold   = "hold-host"    // a process that has a private host until it is killed
	argLaunch = "launch"       // what makes a container's tree
)

// initCommand is Options.Init for the test binary.
var initCommand = []string{"/proc/self/exe", argInit}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case argInit:
			fmt.Fprintln(os.Stderr, InitPrivateHost(os.Args[2:]))
			os.Exit(1)
		case argHold:
			holdHost(os.Args[2])
		case argLaunch:
			fmt.Fprintln(os.Stderr, launch(os.Args[2:]))
			os.Exit(1)
		}
	}
	if dir := os.Getenv(insideVariable); dir != "" {
		if err := os.Chdir(dir); err != nil { // entering a mount namespace leads to /
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(runTests(m))
}

// runTests runs all tests with a directory of their own for what is temporary:
// private hosts see it and nothing else of the machine's /tmp.
func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "imgmut-machined-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755) // for containers with their own users
	}
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	os.Setenv("TMPDIR", dir)
	return m.Run()
}

// testOptions open a private host for tests, which logs to log.
func testOptions(t *testing.T, log io.Writer) Options {
	t.Helper()
	payload, err := buildPayload()
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable() // for launchers
	if err != nil {
		t.Fatal(err)
	}
	return Options{Mode: Private, Init: initCommand, Paths: []string{os.TempDir(), payload, exe}, Log: log}
}

// openTestHost opens a host that ends with the test: a private one, but inside
// a host the one that is there.
func openTestHost(t *testing.T) *Host {
	t.Helper()
	h, _ := openLoggedHost(t)
	return h
}

// openLoggedHost is openTestHost with the log of a private host, which is not
// to be read before the host is closed.
func openLoggedHost(t *testing.T) (*Host, *bytes.Buffer) {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Systemd)
	log := &bytes.Buffer{}
	o, want := testOptions(t, log), Private
	if os.Getenv(insideVariable) != "" {
		o.Mode, want = Auto, System
	}
	h, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if h.Mode() != want {
		t.Fatalf("Open() chose %v, want %v", h.Mode(), want)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the host's log:\n%s", log)
		}
	})
	return h, log
}

// payloadVariable is where a test binary inside a host finds the payload,
// since it finds no compiler there.
const payloadVariable = "IMGMUT_TEST_PAYLOAD"

// buildPayload returns the path of the program that tests run in containers.
var buildPayload = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(payloadVariable); path != "" {
		return path, nil
	}
	path := filepath.Join(os.TempDir(), "payload")
	build := exec.Command("go", "build", "-o", path, "./testdata/payload")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", build, err, out)
	}
	return path, nil
})
