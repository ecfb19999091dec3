package machined

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
)

// The hidden arguments that make the test binary something else.
const (
	argInit = "private-host" // process 1 of a private host
	argHold = "hold-host"    // a process that has a private host until it is killed
)

// initCommand is Options.Init for the test binary.
var initCommand = []string{"/proc/self/exe", argInit}

func TestMain(m *testing.M) {
	if len(os.Args) == 2 {
		switch os.Args[1] {
		case argInit:
			fmt.Fprintln(os.Stderr, InitPrivateHost())
			os.Exit(1)
		case argHold:
			holdHost()
		}
	}
	if dir := os.Getenv(insideVariable); dir != "" {
		if err := os.Chdir(dir); err != nil { // entering a mount namespace leads to /
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	status := m.Run()
	if payloadDir != "" {
		_ = os.RemoveAll(payloadDir)
	}
	os.Exit(status)
}

// openTestHost opens a host that ends with the test: a private one, but inside
// a host the one that is there.
func openTestHost(t *testing.T) *Host {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Systemd)
	var log bytes.Buffer
	o, want := Options{Mode: Private, Init: initCommand, Log: &log}, Private
	if os.Getenv(insideVariable) != "" {
		o, want = Options{Mode: Auto}, System
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
			t.Logf("the host's log:\n%s", &log)
		}
	})
	return h
}

var payloadDir string // removed by TestMain

// buildPayload returns the path of the program that tests run in containers.
var buildPayload = sync.OnceValues(func() (string, error) {
	var err error
	if payloadDir, err = os.MkdirTemp("", "imgmut-machined-"); err != nil {
		return "", err
	}
	path := filepath.Join(payloadDir, "payload")
	build := exec.Command("go", "build", "-o", path, "./testdata/payload")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", build, err, out)
	}
	return path, os.Chmod(payloadDir, 0o755) // for containers with their own users
})
