package machined

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
)

func TestPrivateHost(t *testing.T) {
	// Raising these is what PID 1 does on its own.
	sysctls := []string{"fs/file-max", "fs/nr_open", "net/unix/max_dgram_qlen"}
	before := readSysctls(t, sysctls)
	begun := time.Now()
	h := openTestHost(t)
	t.Logf("Open took %v", time.Since(begun).Round(time.Millisecond))
	if after := readSysctls(t, sysctls); after != before {
		t.Errorf("sysctls were %s, now %s", before, after)
	}
	if h.Mode() != Private || h.Version() < minVersion {
		t.Errorf("Mode %v, Version %d", h.Mode(), h.Version())
	}
	for ns, shared := range map[string]bool{
		"mnt": false, "pid": false, "ipc": false, "uts": false, "cgroup": false, "net": true, "user": true,
	} {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", h.PID(), ns))
		if err != nil {
			t.Fatal(err)
		}
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if (theirs == ours) != shared {
			t.Errorf("%s namespace: shared = %v, want %v", ns, theirs == ours, shared)
		}
	}
	begun = time.Now()
	path, pid := filepath.Join(testCgroups(t), filepath.Base(h.private.cgroup.path)), h.PID()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := h.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	}
	t.Logf("Close took %v", time.Since(begun).Round(time.Millisecond))
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("process 1 after Close: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("cgroup after Close: %v", err)
	}
}

func readSysctls(t *testing.T, names []string) string {
	t.Helper()
	var all []string
	for _, name := range names {
		value, err := os.ReadFile("/proc/sys/" + name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, name+"="+strings.TrimSpace(string(value)))
	}
	return strings.Join(all, " ")
}

// What PID 1 finds in the machine's /etc must not matter, and what it would write
// there must not arrive.
func TestPrivateHostSeesNoConfiguration(t *testing.T) {
	h := openTestHost(t)
	root := fmt.Sprintf("/proc/%d/root", h.PID())
	for _, path := range []string{"/etc", "/usr", "/proc/sys"} {
		var st unix.Statfs_t
		if err := unix.Statfs(root+path, &st); err != nil || st.Flags&unix.ST_RDONLY == 0 {
			t.Errorf("%s is writable in the host (%v)", path, err)
		}
	}
	units, err := os.ReadDir(root + insideUnits)
	if err != nil || len(units) != 9 {
		t.Errorf("units %v, %v, want our nine", units, err)
	}
	if generated, _ := filepath.Glob(root + "/run/systemd/generator*/*"); len(generated) > 0 {
		t.Errorf("generators ran: %v", generated)
	}
}

func TestTwoHosts(t *testing.T) {
	one, two := openTestHost(t), openTestHost(t)
	run1 := mustStart(t, one, payloadContainer(t, makeTree(t), "copy"))
	run2 := mustStart(t, two, payloadContainer(t, makeTree(t), "copy"))
	_ = run1.stdin.Close()
	if err := run1.machine.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	fmt.Fprint(run2.stdin, "alive")
	_ = run2.stdin.Close()
	if err := run2.machine.Wait(t.Context()); err != nil || run2.stdout.String() != "alive" {
		t.Errorf("after the other host closed: Wait() = %v, stdout %q", err, run2.stdout)
	}
}

// holdHost is a process that holds a private host with a container over tree until
// it is killed. It prints the pid of the host's process 1, and the names of its cgroup
// and of the container.
func holdHost(tree string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	program, err := os.Executable()
	fail(err)
	h, err := Open(context.Background(), Options{Mode: Private, Init: initCommand, Paths: []string{tree, program}})
	fail(err)
	c := mapped(Container{Name: "imgmut-test-" + rand.Text(), Directory: tree,
		Command: []string{agentPath, "sleep"}, Binds: []Bind{{Source: filepath.Join(tree, "payload"), Target: agentPath}}}, 0x80000, 0x10000)
	_, err = h.Start(context.Background(), c)
	fail(err)
	fmt.Println(h.PID(), filepath.Base(h.private.cgroup.path), c.Name)
	select {}
}

func TestKilledHolder(t *testing.T) {
	live := openTestHost(t)
	tree := makeTree(t)
	payload, _ := buildPayload() // as for the host
	runTool(t, "", "cp", payload, filepath.Join(tree, "payload"))
	holder := exec.Command("/proc/self/exe", argHold, tree)
	holder.Stderr = os.Stderr
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var name, container string
	if _, err := fmt.Fscan(bufio.NewReader(out), &pid, &name, &container); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(testCgroups(t), name)
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)

	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // killed
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000); err != nil || n != 1 {
		t.Fatalf("process 1 of the killed holder's host is alive (%d, %v)", n, err)
	}
	waitEmpty(t, path)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), container) {
		t.Errorf("the machine has mounts of the container (%v):\n%s", err, mounts)
	}
	if left, _ := filepath.Glob("/run/*" + container + "*"); len(left) > 0 {
		t.Errorf("the machine has %v", left)
	}

	// The next Open removes what is left, and only that.
	next := openTestHost(t)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("cgroup of the killed holder: %v, want not exist", err)
	}
	for _, h := range []*Host{live, next} {
		if _, err := h.PoolPath(t.Context()); err != nil {
			t.Errorf("a live host: %v", err)
		}
	}
}

// testCgroups is the directory in which hosts of this process have their
// cgroups.
func testCgroups(t *testing.T) string {
	t.Helper()
	own, err := mountOwnCgroup()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	return pathOf(own)
}

// waitEmpty waits until the kernel has taken the last process out of a cgroup.
func waitEmpty(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		events, err := os.ReadFile(filepath.Join(path, "cgroup.events"))
		if err != nil || strings.Contains(string(events), "populated 0") {
			return
		}
		if err := waitCgroupEvent(path, time.Until(deadline)); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("%s is still populated", path)
}

func TestSweepKeepsLiveCgroups(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Systemd)
	c, err := newCgroup()
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(filepath.Dir(c.path), cgroupPrefix+"1-DEAD")
	if err := os.MkdirAll(filepath.Join(dead, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	sweepCgroups(filepath.Dir(c.path))
	if _, err := os.Stat(c.path); err != nil {
		t.Errorf("a locked, empty cgroup was removed: %v", err)
	}
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an unlocked, empty cgroup: %v, want not exist", err)
	}
	if err := c.remove(); err != nil {
		t.Error(err)
	}
}

func TestOpenFailures(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Systemd)
	for _, tc := range []struct {
		name        string
		init, paths []string
		want        string
	}{
		{"no init", nil, nil, "absolute path"},
		{"relative path", initCommand, []string{"store"}, "absolute path"},
		{"all paths", initCommand, []string{"/"}, "absolute path"},
		{"path does not exist", initCommand, []string{"/nonexistent"}, "no such file"},
		{"relative init", []string{"imgmut", argInit}, nil, "absolute path"},
		{"init does not exist", []string{"/nonexistent"}, nil, "no such file"},
		{"init is another program", []string{"/bin/sh", "-c", "echo not imgmut >&2; exit 7"}, nil, "not imgmut"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Open(t.Context(), Options{Mode: Private, Init: tc.init, Paths: tc.paths})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Open() = %v, want it to mention %q", err, tc.want)
			}
		})
	}
	t.Run("unknown mode", func(t *testing.T) {
		if _, err := Open(t.Context(), Options{Mode: "vm"}); err == nil || !strings.Contains(err.Error(), `"vm"`) {
			t.Errorf("Open() = %v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		if _, err := Open(ctx, Options{Mode: Private, Init: initCommand}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Open() = %v, want the context's error", err)
		}
	})
	if left, _ := filepath.Glob(filepath.Join(testCgroups(t), cgroupPrefix+fmt.Sprint(os.Getpid())+"-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
