package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fresh are the filesystems that are no part of the image, and that steps could
// hand things on through. Each command gets its own: nothing need be cleared
// away after it, and nothing it removes is missed by the next.
var fresh = []struct{ fs, dir, data string }{
	// With the limits that systemd-nspawn has for its own (nspawn-mount.c).
	{"tmpfs", "/run", "mode=0755,size=20%,nr_inodes=800k"},
	{"tmpfs", "/tmp", "mode=1777,size=10%,nr_inodes=400k"},
	{"tmpfs", "/dev/shm", "mode=1777,size=10%,nr_inodes=400k"},
	{"mqueue", "/dev/mqueue", ""}, // of the new IPC namespace
	{"devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=620,gid=5"},
}

// mountFresh mounts them over those that systemd-nspawn mounted. Where it did
// not, a link leads into the image, say from /tmp to /var/tmp, and what is there
// is the image's.
func mountFresh() error {
	for _, f := range fresh {
		var st unix.Statfs_t
		if unix.Statfs(f.dir, &st) != nil || st.Type != unix.TMPFS_MAGIC && f.fs == "tmpfs" {
			continue
		}
		if err := unix.Mount(f.fs, f.dir, f.fs, unix.MS_NOSUID|unix.MS_NODEV, f.data); err != nil {
			return fmt.Errorf("mount a fresh %s: %w", f.dir, err)
		}
	}
	for _, dir := range []string{"/run/lock", "/run/host"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// By which programs know that they are in a container, and in which kind.
	if err := os.WriteFile("/run/host/container-manager", []byte("systemd-nspawn\n"), 0o644); err != nil {
		return err
	}
	if err := os.Chmod("/run/lock", 0o777|fs.ModeSticky); err != nil {
		return err
	}
	// What is left of the tmpfs on /dev is read-only: its devices are not, as
	// they are not files of it. And no cgroup is made that would outlive the step.
	for _, dir := range []string{"/dev", "/sys/fs/cgroup"} {
		err := unix.MountSetattr(unix.AT_FDCWD, dir, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) { // not there, or no mount
			return fmt.Errorf("make %s read-only: %w", dir, err)
		}
	}
	return nil
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

// leaveWorld gives the calling thread, and the program it is about to start, a
// world of its own. undo removes from the image what had to be put there for
// covers to be mounted on.
func leaveWorld(c *RunCall, covers []Cover) (undo func() error, err error) {
	flags := unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if !c.Network {
		flags |= unix.CLONE_NEWNET
	}
	if err := unix.Unshare(flags); err != nil {
		return nil, fmt.Errorf("unshare namespaces: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	if err := mountFresh(); err != nil {
		return nil, err
	}
	if err := unix.Sethostname([]byte(hostname())); err != nil {
		return nil, fmt.Errorf("set host name: %w", err)
	}
	if !c.Network {
		if err := loopbackUp(); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(workDir, 0o711); err != nil { // scripts in it run as any user
		return nil, err
	}
	if c.Script != "" {
		if err := os.WriteFile(scriptFile, []byte(c.Script), 0o755); err != nil {
			return nil, err
		}
	}
	if undo, err = placeholders(covers); err != nil {
		return nil, err
	}
	for i, c := range covers {
		if err := mountCover(i, c); err != nil {
			return nil, errors.Join(fmt.Errorf("cover %s: %w", c.Path, err), undo())
		}
	}
	return undo, nil
}

// maxHostname bounds what is read of the image's file for it.
const maxHostname = 4 << 10

// hostname is the image's own, so that what a step derives from it does not
// depend on where the image is built.
func hostname() string {
	b, err := readRegular("/etc/hostname", maxHostname)
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
