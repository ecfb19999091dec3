package main

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func cgroupsMounted() (string, error) {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(b), " - cgroup") {
		return "they are", nil
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.procs"); err == nil {
		return "they are", nil
	}
	return "", errNothing
}

func mountCgroups() (string, error) {
	var err error
	for _, fs := range []string{"cgroup2", "cgroup"} {
		for _, options := range []string{"", "memory", "freezer", "pids", "devices", "none,name=systemd", "none,name=new"} {
			if err = unix.Mount(fs, "/mnt", fs, 0, options); err == nil {
				if err := os.Mkdir("/mnt/litter", 0o755); err == nil {
					os.Remove("/mnt/litter")
					return fs + " " + options + ", and can be written", nil
				}
				return fs + " " + options, nil
			}
		}
	}
	return "", err
}

func mountCgroupsAnew() (string, error) {
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		cmd := exec.Command("/proc/self/exe", "one", "mount cgroups")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP,
			UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}},
		}
		if out, err := cmd.CombinedOutput(); strings.Contains(string(out), "broke") || err == nil {
			return string(out), nil
		}
		return "", err
	}
	return mountCgroups()
}

func writeProgram() (string, error) {
	program, err := unix.Open("/proc/1/exe", unix.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	for _, path := range []string{"/proc/1/exe", fmt.Sprintf("/proc/self/fd/%d", program), "/run/imgmut/agent"} {
		fd, e := unix.Open(path, unix.O_WRONLY, 0)
		if e == nil || e == unix.ETXTBSY {
			return path + " can be written", nil
		}
		err = e
		unix.Close(fd)
	}
	return "", err
}

func mountOverProgram() (string, error) {
	for _, path := range []string{"/proc/1/exe", "/run/imgmut/agent"} {
		if err := unix.Mount("/bin/true", path, "", unix.MS_BIND, ""); err == nil && path != "/proc/1/exe" {
			return "mounted on " + path, nil
		}
	}
	attr := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	err := unix.MountSetattr(unix.AT_FDCWD, "/proc/1/exe", 0, &attr)
	if err == nil {
		return "made its mount writable", nil
	}
	return "", err
}

func kernelSettings() (string, error) {
	unix.Unmount("/proc/sys", unix.MNT_DETACH)
	unix.Mount("proc", "/mnt", "proc", 0, "")
	unix.Mount("binfmt_misc", "/mnt/sys/fs/binfmt_misc", "binfmt_misc", 0, "")
	var err error
	for _, dir := range []string{"/proc/", "/mnt/"} {
		for _, file := range []string{
			"sys/kernel/core_pattern", "sys/kernel/modprobe", "sys/kernel/hotplug", "sys/vm/drop_caches",
			"sys/kernel/panic", "sys/fs/protected_symlinks", "sysrq-trigger", "irq/default_smp_affinity", "kcore",
		} {
			var fd int
			if fd, err = unix.Open(dir+file, unix.O_WRONLY, 0); err == nil {
				unix.Close(fd)
				return dir + file + " can be written", nil
			}
		}
	}
	return "", err
}

func writeSys() (string, error) {
	unix.Mount("", "/sys", "", unix.MS_REMOUNT|unix.MS_BIND, "")
	unix.Mount("sysfs", "/mnt", "sysfs", 0, "")
	for _, dir := range []string{"/sys", "/mnt"} {
		for _, file := range []string{
			"/kernel/uevent_seqnum", "/kernel/mm/transparent_hugepage/enabled", "/kernel/mm/ksm/run", "/power/state",
			"/kernel/profiling", "/block/loop0/queue/read_ahead_kb", "/module/loop/parameters/max_loop", "/firmware/efi/vars",
		} {
			if fd, err := unix.Open(dir+file, unix.O_WRONLY, 0); err == nil {
				unix.Close(fd)
				return dir + file + " can be written", nil
			}
		}
	}
	attr := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	err := unix.MountSetattr(unix.AT_FDCWD, "/sys", unix.AT_RECURSIVE, &attr)
	if err == nil {
		return "made /sys writable", nil
	}
	return "", err
}

func deviceNodes() (string, error) {
	unix.Mount("tmpfs", "/mnt", "tmpfs", 0, "")
	devices := []struct{ mode, major, minor uint32 }{
		{unix.S_IFBLK, 254, 0}, {unix.S_IFBLK, 7, 0}, {unix.S_IFCHR, 1, 1}, {unix.S_IFCHR, 1, 11},
	}
	var err error
	for _, dir := range []string{"/var/tmp", "/mnt", "/tmp", "/dev/shm"} {
		for _, dev := range devices {
			name := dir + "/node"
			if err = unix.Mknod(name, dev.mode|0o600, int(unix.Mkdev(dev.major, dev.minor))); err == nil {
				os.Remove(name)
				return fmt.Sprintf("made %v in %s", dev, dir), nil
			}
		}
	}
	return "", err
}

func machineDevices() (string, error) {
	var err error
	for _, name := range []string{
		"mem", "kmsg", "loop-control", "loop0", "vda", "sda", "nvme0n1", "mapper/control", "console", "tty0", "input",
	} {
		var fd int
		if fd, err = unix.Open("/dev/"+name, unix.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			unix.Close(fd)
			return "/dev/" + name, nil
		}
	}
	return "", err
}

func terminal() (string, error) {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR, 0)
	if err == nil {
		c := byte('x')
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSTI, uintptr(unsafe.Pointer(&c)))
		return fmt.Sprintf("there is one (%v)", errno), nil
	}
	for fd := range 3 {
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			return fmt.Sprintf("descriptor %d is one", fd), nil
		}
	}
	return "", err
}

func inherited() (string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(os.Getppid()) + "/cmdline")
	if err != nil {
		return "", err
	}
	links, _ := filepath.Glob("/proc/" + strconv.Itoa(os.Getppid()) + "/fd/*")
	for _, l := range links {
		to, _ := os.Readlink(l)
		if strings.HasPrefix(to, "pipe:") || strings.HasPrefix(to, "anon_inode:") || to == "/dev/null" {
			continue // its output, and what the runtime of Go makes for itself
		}
		if !strings.HasPrefix(to, "/proc/") {
			return fmt.Sprintf("%s has %s", b, to), nil
		}
	}
	if to, _ := os.Readlink("/proc/" + strconv.Itoa(os.Getppid()) + "/fd/0"); to != "/dev/null" {
		return "its input is " + to, nil
	}
	return "", errNothing
}

func loopback() (string, error) {
	c, err := net.Dial("tcp", "127.0.0.1:"+os.Args[3])
	if err == nil {
		c.Close()
		return "connected", nil
	}
	return "", err
}

func abstractSocket() (string, error) {
	c, err := net.Dial("unix", "@"+os.Args[4])
	if err == nil {
		c.Close()
		return "connected", nil
	}
	if b, _ := os.ReadFile("/proc/net/unix"); strings.Contains(string(b), "@") {
		return "sees some", nil
	}
	return "", err
}

func interfaces() (string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, i := range all {
		if i.Name != "lo" {
			return i.Name, nil
		}
	}
	return "", errNothing
}

func interfacesInSys() (string, error) {
	all, err := os.ReadDir("/sys/class/net")
	for _, i := range all {
		if i.Name() != "lo" {
			return i.Name(), nil
		}
	}
	found, _ := filepath.Glob("/sys/devices/*/*/net/*")
	virtual, _ := filepath.Glob("/sys/devices/virtual/net/*")
	for _, path := range append(found, virtual...) {
		if filepath.Base(path) != "lo" {
			return path, nil
		}
	}
	return "", cmp.Or(err, errNothing)
}

func hypervisor() (string, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	err = unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: 1024})
	return fmt.Sprintf("a socket to it (%v)", err), nil
}

// rings tries io_uring, by which sockets are made that no filter of system calls sees.
func rings() (string, error) {
	var params [120]byte
	_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params[0])), 0)
	if errno == 0 {
		return "got one", nil
	}
	return "", errno
}

func reboot() (string, error) {
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)
	if err == nil {
		return "allowed", nil
	}
	return "", err
}

// forkBomb makes processes until it may not. That the agent lives is seen by
// the next step.
func forkBomb() (string, error) {
	unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
	var children []int
	var errno unix.Errno
	for len(children) < 20000 {
		pid, _, e := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)
		if e != 0 {
			errno = e
			break
		}
		if pid == 0 {
			for {
				unix.RawSyscall(unix.SYS_PAUSE, 0, 0, 0)
			}
		}
		children = append(children, int(pid))
	}
	for _, pid := range children {
		unix.Kill(pid, unix.SIGKILL)
	}
	if errno == 0 {
		return fmt.Sprintf("%d, and no end", len(children)), nil
	}
	return "", fmt.Errorf("%d, then %v", len(children), errno)
}
