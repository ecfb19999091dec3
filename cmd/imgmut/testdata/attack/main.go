// Command attack is run by root in a step, and tries to get at what a step is
// kept from. For each attack it prints a line: "NAME held: WHY" or "NAME broke:
// HOW".
//
//	attack all PORT SOCKET   everything that one step can try
//	attack leave             leave things for another step
//	attack find              look for them
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// attacks give what they got at, or why not.
var attacks = []struct {
	name string
	run  func() (broke string, err error)
}{
	{"unmount proc", unmountProc},
	{"mount proc anew", mountProc},
	{"unmount everything", unmountEverything},
	{"unmount everything in namespaces below", unmountBelow},
	{"unmount a locked mount", unmountLocked},
	{"move a locked mount", moveLocked},
	{"bind the root without what is mounted on it", bindRoot},
	{"pivot root", pivotRoot},
	{"leave a chroot", leaveChroot},
	{"root of init", initRoot},
	{"descriptors of init", initDescriptors},
	{"descriptors taken from init", takeDescriptors},
	{"namespaces of init", initNamespaces},
	{"other mount namespaces", mountNamespaces},
	{"handles on namespaces", namespaceHandles},
	{"parent of the user namespace", parentUserNamespace},
	{"processes by number", processesByNumber},
	{"trace by number", traceByNumber},
	{"cgroups that are mounted", cgroupsMounted},
	{"mount cgroups", mountCgroups},
	{"mount cgroups in a new namespace", mountCgroupsAnew},
	{"write to the agent's program", writeProgram},
	{"mount over the agent's program", mountOverProgram},
	{"kernel settings", kernelSettings},
	{"sysfs", writeSys},
	{"device nodes", deviceNodes},
	{"the machine's devices", machineDevices},
	{"terminal", terminal},
	{"inherited descriptors", inherited},
	{"the machine's loopback", loopback},
	{"the machine's abstract sockets", abstractSocket},
	{"interfaces of the machine", interfaces},
	{"interfaces of the machine in sysfs", interfacesInSys},
	{"the hypervisor", hypervisor},
	{"rings of system calls", rings},
	{"reboot", reboot},
	{"processes without end", forkBomb},
}

func main() {
	runtime.LockOSThread()
	switch {
	case len(os.Args) < 2:
		os.Exit(2)
	case os.Args[1] == "all":
		for _, a := range attacks {
			// Each in a process and with mounts of its own, as some break things.
			cmd := exec.Command("/proc/self/exe", append([]string{"one", a.name}, os.Args[2:]...)...)
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
			if err := cmd.Run(); err != nil {
				fmt.Printf("%s broke: the attack itself: %v\n", a.name, err)
			}
		}
	case os.Args[1] == "one":
		for _, a := range attacks {
			if a.name == os.Args[2] {
				tell(a.name, a.run)
			}
		}
	case os.Args[1] == "give":
		give("@" + os.Args[2])
	case os.Args[1] == "leave":
		leave()
	case os.Args[1] == "find":
		find()
	}
}

func tell(name string, run func() (string, error)) {
	broke, err := run()
	switch {
	case broke != "":
		fmt.Printf("%s broke: %s\n", name, broke)
	default:
		fmt.Printf("%s held: %v\n", name, err)
	}
}

var errNothing = errors.New("nothing to be seen")

// seen looks for the agent, and for what only it should see, below a root.
func seen(root string) (string, error) {
	lines, _ := filepath.Glob(root + "/proc/[0-9]*/cmdline")
	for _, l := range lines {
		b, err := os.ReadFile(l)
		if f := strings.Split(string(b), "\x00"); err == nil && len(f) > 1 && (f[1] == "agent" || f[1] == "agent-serve") {
			return "the agent is " + filepath.Dir(l), nil
		}
	}
	for _, path := range []string{"/run/imgmut/agent", "/run/host/os-release", "/run/host/notify"} {
		if _, err := os.Lstat(root + path); err == nil {
			return root + path + " is there", nil
		}
	}
	return "", errNothing
}

func mounts() (points []string) {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) > 4 {
			points = append(points, f[4])
		}
	}
	return points
}
