package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// volatile are the directories that are no part of the image and that steps
// could hand things on through.
var volatile = []string{"/run", "/tmp", "/dev/shm"}

// world is what was in the volatile directories before the first step.
type world struct{ paths map[string]bool }

func rememberWorld() *world {
	w := &world{paths: map[string]bool{}}
	for _, dir := range volatile {
		filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			w.paths[path] = true
			return nil // what cannot be read was there before all the same
		})
	}
	return w
}

// reset ends what the step left running and removes what it left outside the
// image.
func (s *server) reset() error {
	errs := []error{killAll()}
	for _, dir := range volatile {
		errs = append(errs, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || s.world.paths[path] {
				return nil
			}
			if err := os.RemoveAll(path); err != nil {
				return err
			}
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}))
	}
	return errors.Join(errs...)
}

// killAll ends every process of the guest but PID 1 and this one (kill(2),
// pid -1), and returns when they are gone: a process that still dies may still
// hold files open.
func killAll() error {
	for deadline := time.Now().Add(10 * time.Second); ; {
		if err := unix.Kill(-1, unix.SIGKILL); err == unix.ESRCH {
			return nil
		}
		left, err := processes()
		if err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("end what the step left running: processes %v do not die", left)
		}
		time.Sleep(500 * time.Microsecond)
	}
}

func processes() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != 1 && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// leaveWorld gives the calling thread, and the program it is about to start,
// namespaces of their own.
func leaveWorld(covers []Cover, network bool) error {
	flags := unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if !network {
		flags |= unix.CLONE_NEWNET
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("unshare namespaces: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Sethostname([]byte(hostname())); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if !network {
		if err := loopbackUp(); err != nil {
			return err
		}
	}
	for i, c := range covers {
		if err := mountCover(i, c); err != nil {
			return fmt.Errorf("cover %s: %w", c.Path, err)
		}
	}
	return dropTracing()
}

// dropTracing takes from the program that the calling thread is about to start
// the capability to trace whom it likes: it could take over the agent, and with
// it the machine's network. Its own children it can trace without.
func dropTracing() error {
	const bit = 1 << unix.CAP_SYS_PTRACE // in the first of the two words
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_PTRACE, 0, 0, 0); err != nil {
		return fmt.Errorf("drop the capability to trace: %w", err)
	}
	// systemd-nspawn makes its capabilities inheritable, and those survive an
	// execve(2) by root whatever the bounding set says (capabilities(7)).
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("drop the capability to trace: %w", err)
	}
	sets[0].Inheritable &^= bit
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("drop the capability to trace: %w", err)
	}
	return nil
}

// hostname is the image's own, so that what a step derives from it does not
// depend on where the image is built.
func hostname() string {
	b, err := os.ReadFile("/etc/hostname")
	if name := strings.TrimSpace(string(b)); err == nil && name != "" && len(name) <= 64 && !strings.ContainsAny(name, " \n#") {
		return name
	}
	return "localhost"
}

// loopbackUp brings up the loopback interface of a new network namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil && err != unix.EPERM {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	return nil // without user namespaces the guest has no CAP_NET_ADMIN, and loopback stays down
}
