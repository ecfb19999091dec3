package machined

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever ends a container, nothing of it stays on its host: systemd-nspawn may be
// killed, as the kernel does it when memory is short.
func TestNothingIsLeft(t *testing.T) {
	h := openTestHost(t)
	ends := map[string]func(*testing.T, *testRun){
		"by itself": func(t *testing.T, run *testRun) {
			_ = run.stdin.Close()
			if err := run.machine.Wait(t.Context()); err != nil {
				t.Errorf("Wait() = %v, stderr %q", err, run.stderr)
			}
		},
		"terminated": func(t *testing.T, run *testRun) {
			if err := run.machine.Terminate(t.Context()); err != nil {
				t.Error(err)
			}
		},
		"killed": func(t *testing.T, run *testRun) {
			// Only systemd-nspawn, the unit's main process.
			err := h.conns.callManager(t.Context(), "KillUnit", []any{run.machine.unit.name, "main", int32(unix.SIGKILL)})
			if err != nil {
				t.Fatal(err)
			}
			var exit *ExitError
			if err := run.machine.Wait(t.Context()); !errors.As(err, &exit) || exit.Result != "signal" || !exit.Signal {
				t.Errorf("Wait() = %v, want an ExitError by a signal", err)
			}
		},
	}
	// The first one makes directories for all.
	ends["by itself"](t, mustStart(t, h, mapped(payloadContainer(t, makeTree(t), "copy"), 0x80000, 0x10000)))
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			c := mapped(payloadContainer(t, makeTree(t), "copy"), 0x80000, 0x10000)
			before := leavings(t, h)
			run := mustStart(t, h, c)
			if _, err := os.Stat(hostRoot(h) + "/run/" + c.RuntimeDirectory); err != nil {
				t.Error(err)
			}
			end(t, run)
			for _, name := range leavings(t, h) {
				if !slices.Contains(before, name) {
					t.Errorf("it leaves %s", name)
				}
			}
			assertGone(t, h, c.Name)
		})
	}
}

// hostRoot is what leads to the root directory of a host: nothing if it is the machine's.
func hostRoot(h *Host) string {
	if h.PID() == 0 {
		return ""
	}
	return fmt.Sprintf("/proc/%d/root", h.PID())
}

// leavings are the mounts of a host, and all that is in its directories for what is
// temporary, but for what tests have there.
func leavings(t *testing.T, h *Host) (names []string) {
	t.Helper()
	root := hostRoot(h)
	for _, dir := range []string{"/tmp", "/var/tmp", "/run"} {
		err := filepath.WalkDir(root+dir, func(path string, _ fs.DirEntry, err error) error {
			if path == root+os.TempDir() || path == root+insideProc {
				return filepath.SkipDir
			}
			names = append(names, path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	pid := max(h.PID(), 1)
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		names = append(names, strings.Fields(line)[4])
	}
	return names
}
