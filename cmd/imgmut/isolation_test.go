package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/agent"
)

// attackProgram builds testdata/attack, which a step runs.
func attackProgram(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "attack")
	cmd := exec.Command("go", "build", "-o", program, "./testdata/attack")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return program
}

// listeners are what a step without the network may not reach: a port of the
// machine's loopback, and an abstract socket.
func listeners(t *testing.T) (port, socket string) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close() })
	socket = fmt.Sprintf("imgmut-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	abstract, err := net.Listen("unix", "@"+socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { abstract.Close() })
	_, port, _ = net.SplitHostPort(tcp.Addr().String())
	return port, socket
}

// TestIsolation: no attack of a step that is root and has the source gets at the
// agent, the machine or another step. The guest is in the machine's network,
// because another step needs it, so all depends on what keeps steps from that.
func TestIsolation(t *testing.T) {
	for name, prefix := range map[string]func(image string) []string{
		"this machine": func(string) []string { return nil },
		// systemd-nspawn mounts not everything alike in all versions.
		"Debian 13": func(image string) []string {
			return []string{"unshare", "--mount", "sh", "-euc", enter, "sh", fixtures.HostTree(t), os.TempDir(),
				filepath.Dir(image)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			image := fixtures.Image(t, "debian-12")
			l.prefix = prefix(image)
			l.attack(image)
		})
	}
}

// attack runs all attacks in a guest, and wants each to fail.
func (l *lab) attack(image string) {
	t := l.t
	port, socket := listeners(t)
	program := attackProgram(t)
	recipe := filepath.Join(filepath.Dir(program), "recipe.yaml")
	err := os.WriteFile(recipe, fmt.Appendf(nil, `version: 1
name: attacked
base: %s
steps:
  - copy: {from: attack, to: /usr/local/bin/attack, mode: "0755"}
  - run: [attack, all, "%s", "%s"]
  - run: [attack, leave]
  - run: [attack, find]
  - run: "true"
    network: true
`, image, port, socket), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, stderr := l.run(0, "apply", recipe)
	results := regexp.MustCompile(`(?m)^.*?\| (.*?) (held|broke): (.*)$`).FindAllStringSubmatch(stderr, -1)
	for _, r := range results {
		t.Run(r[1], func(t *testing.T) {
			if r[2] == "broke" {
				t.Error(r[3])
			}
			t.Log(r[3]) // why it held
		})
	}
	if len(results) < 40 {
		t.Errorf("%d attacks told how they ended:\n%s", len(results), stderr)
	}
	l.wantClean()
}

// TestOutputHandedOut: a step that hands its output to another process of the
// machine ends all the same.
func TestOutputHandedOut(t *testing.T) {
	l := newLab(t)
	image := fixtures.Image(t, "debian-12")
	program := attackProgram(t)
	socket := fmt.Sprintf("@imgmut-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	taken := make(chan []byte, 1)
	ended := make(chan struct{})
	go func() {
		defer close(taken)
		c, err := listener.AcceptUnix()
		if err != nil {
			return
		}
		defer c.Close()
		rights := make([]byte, 100)
		_, n, _, _, err := c.ReadMsgUnix(make([]byte, 1), rights)
		if err != nil {
			t.Error(err)
		}
		taken <- rights[:n]
		c.Write([]byte("x"))
		<-ended
	}()
	defer close(ended)
	recipe := filepath.Join(filepath.Dir(program), "recipe.yaml")
	err = os.WriteFile(recipe, fmt.Appendf(nil, `version: 1
name: handed
base: %s
steps:
  - copy: {from: attack, to: /usr/local/bin/attack, mode: "0755"}
  - {run: [attack, give, "%s"], network: true, timeout: 20s}
`, image, strings.TrimPrefix(socket, "@")), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, stderr := l.run(0, "apply", recipe)
	messages, err := unix.ParseSocketControlMessage(<-taken)
	if err != nil || len(messages) != 1 || !strings.Contains(stderr, "| given: <nil>") {
		t.Fatalf("the output was not handed out: %v\n%s", err, stderr)
	}
	files, _ := unix.ParseUnixRights(&messages[0])
	for _, fd := range files {
		unix.Close(fd)
	}
}

// TestNetworkNamespaces: the agent is never in the machine's network, and no
// process of the guest is if no step needs it. A step that does not need it sees
// the same of it in both cases.
func TestNetworkNamespaces(t *testing.T) {
	l := newLab(t)
	machine, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, network string
		launcher      bool // it is in the machine's network
	}{{"no step needs the network", "false", false}, {"one does", "true", true}} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := l.command("apply", "--no-cache", "--replace", l.recipe(`version: 1
name: networks
base: `+fixtures.Image(t, "debian-12")+`
steps:
  - run: echo has $(ls /sys/class/net); echo ready; sleep 5
  - {run: "true", network: `+tc.network+`}
`))
			var errs lockedBuffer
			cmd.Stderr = &errs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			deadline := time.Now().Add(2 * time.Minute)
			for ; !strings.Contains(errs.String(), "| ready"); time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("the step does not start:\n%s", errs.String())
				}
			}
			if !strings.Contains(errs.String(), "| has lo\n") {
				t.Errorf("/sys/class/net has not loopback alone:\n%s", errs.String())
			}
			found := map[string]string{}
			for _, pid := range descendants(cmd.Process.Pid) {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				f := strings.Split(string(b), "\x00")
				if len(f) > 1 {
					found[f[1]], _ = os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
				}
			}
			for _, word := range []string{agent.Arg, agent.ServeArg, agent.InitArg} {
				ns, ok := found[word]
				if want := word == agent.Arg && tc.launcher; !ok || (ns == machine) != want {
					t.Errorf("%s is in %q; the machine's is %s", word, ns, machine)
				}
			}
		})
	}
}

// descendants lists the processes that a process started, and those that they did.
func descendants(pid int) (all []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range tasks {
		b, _ := os.ReadFile(file)
		for _, f := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}
