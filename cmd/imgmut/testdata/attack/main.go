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
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

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

func unmountProc() (string, error) {
	for range 5 {
		unix.Unmount("/proc", unix.MNT_DETACH)
		if left, _ := filepath.Glob("/proc/[0-9]*"); len(left) > 0 {
			return fmt.Sprintf("below /proc is another one: %v", left), nil
		}
	}
	return seen("")
}

func mountProc() (string, error) {
	if err := unix.Mount("proc", "/mnt", "proc", 0, ""); err != nil {
		return "", err
	}
	defer unix.Unmount("/mnt", unix.MNT_DETACH)
	ours, _ := filepath.Glob("/proc/[0-9]*")
	theirs, _ := filepath.Glob("/mnt/[0-9]*")
	if len(theirs) > len(ours)+2 {
		return fmt.Sprintf("it shows %d processes and not %d", len(theirs), len(ours)), nil
	}
	return "", fmt.Errorf("it shows the same %d processes", len(theirs))
}

// unmountAll takes away whatever can be taken away, innermost first.
func unmountAll() (gone []string) {
	points := mounts()
	for range 3 {
		for i := len(points) - 1; i >= 0; i-- {
			if points[i] != "/" && points[i] != "/dev/mqueue" && !strings.HasPrefix(points[i], "/proc") && unix.Unmount(points[i], unix.MNT_DETACH) == nil {
				gone = append(gone, points[i])
			}
		}
	}
	unix.Unmount("/proc", unix.MNT_DETACH)
	return gone
}

func unmountEverything() (string, error) {
	gone := unmountAll()
	if how, _ := seen(""); how != "" {
		return how, nil
	}
	if len(gone) > 0 {
		return fmt.Sprintf("unmounted %v", gone), nil
	}
	return "", errNothing
}

func unmountBelow() (string, error) {
	// A user namespace needs a process with one thread.
	self := "/proc/self/exe"
	cmd := exec.Command(self, "one", "unmount everything")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{Size: 65536}}, GidMappings: []syscall.SysProcIDMap{{Size: 65536}},
	}
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "broke") {
		return string(out), nil
	}
	return "", fmt.Errorf("%v %s", err, strings.TrimSpace(string(out)))
}

func unmountLocked() (string, error) {
	var err error
	for _, dir := range []string{"/run", "/tmp", "/dev/shm", "/dev/pts", "/dev", "/sys", "/"} {
		for _, flags := range []int{0, unix.MNT_DETACH, unix.MNT_FORCE} {
			if err = unix.Unmount(dir, flags); err == nil {
				return "unmounted " + dir, nil
			}
		}
	}
	return "", err
}

func moveLocked() (string, error) {
	var err error
	for _, dir := range []string{"/run", "/tmp", "/dev/shm", "/dev/pts", "/sys"} {
		if err = unix.Mount(dir, "/mnt", "", unix.MS_MOVE, ""); err == nil {
			return "moved " + dir, nil
		}
		if err = unix.MoveMount(unix.AT_FDCWD, dir, unix.AT_FDCWD, "/mnt", 0); err == nil {
			return "moved " + dir, nil
		}
	}
	return "", err
}

func bindRoot() (string, error) {
	err := unix.Mount("/", "/mnt", "", unix.MS_BIND, "")
	if err == nil {
		return "what is below each mount shows", nil
	}
	if _, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE); err == nil {
		return "what is below each mount shows", nil
	}
	return "", err
}

func pivotRoot() (string, error) {
	if err := unix.Mount("tmpfs", "/mnt", "tmpfs", 0, ""); err != nil {
		return "", err
	}
	os.Mkdir("/mnt/old", 0o755)
	if err := unix.PivotRoot("/mnt", "/mnt/old"); err != nil {
		return "", err
	}
	os.Chdir("/")
	if how, _ := seen("/old"); how != "" {
		return how, nil
	}
	for _, dir := range []string{"/old/run", "/old/tmp", "/old/dev/shm"} {
		if unix.Unmount(dir, unix.MNT_DETACH) == nil {
			return "unmounted " + dir, nil
		}
	}
	unix.Unmount("/old", unix.MNT_DETACH)
	entries, _ := os.ReadDir("/old")
	if len(entries) > 0 {
		return "below the old root is another", nil
	}
	return "", errNothing
}

func leaveChroot() (string, error) {
	var was, is unix.Stat_t
	unix.Stat("/", &was)
	fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", err
	}
	if err := errors.Join(unix.Chroot("/var/tmp"), unix.Fchdir(fd)); err != nil {
		return "", err
	}
	for range 64 {
		unix.Chdir("..")
	}
	if err := unix.Chroot("."); err != nil {
		return "", err
	}
	unix.Stat("/", &is)
	if is.Dev != was.Dev || is.Ino != was.Ino {
		return "the root is another", nil
	}
	return seen("")
}

func initRoot() (string, error) {
	roots, _ := filepath.Glob("/proc/1/task/[0-9]*/root")
	for _, root := range append(roots, "/proc/1/root", "/proc/1/cwd") {
		if how, _ := seen(root); how != "" && !strings.Contains(how, "/run/imgmut/script") {
			return how, nil
		}
	}
	return "", fmt.Errorf("%w in %d roots", errNothing, len(roots))
}

func initDescriptors() (string, error) {
	links, _ := filepath.Glob("/proc/1/fd/*")
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && (strings.HasPrefix(to, "socket:") || strings.HasPrefix(to, "/memfd") || strings.HasPrefix(to, "/proc/")) {
			return l + " is " + to, nil
		}
	}
	return "", fmt.Errorf("%w among %d", errNothing, len(links))
}

func takeDescriptors() (string, error) {
	pidfd, err := unix.PidfdOpen(1, 0)
	if err != nil {
		return "", err
	}
	n := 0
	for fd := range 64 {
		got, err := unix.PidfdGetfd(pidfd, fd, 0)
		if err != nil {
			continue
		}
		n++
		if _, err := unix.GetsockoptInt(got, unix.SOL_SOCKET, unix.SO_TYPE); err == nil {
			return fmt.Sprintf("descriptor %d is a socket", fd), nil
		}
	}
	return "", fmt.Errorf("%w among %d", errNothing, n)
}

func initNamespaces() (string, error) {
	unix.Unshare(unix.CLONE_FS)
	spaces, _ := filepath.Glob("/proc/1/task/[0-9]*/ns/*")
	more, _ := filepath.Glob("/proc/1/ns/*")
	var last error
	for _, ns := range append(spaces, more...) {
		fd, err := unix.Open(ns, unix.O_RDONLY, 0)
		if err != nil {
			last = err
			continue
		}
		if err := unix.Setns(fd, 0); err != nil || filepath.Base(ns) != "mnt" {
			last = errors.Join(last, err)
			continue
		}
		if how, _ := seen(""); how != "" {
			return ns + ": " + how, nil
		}
		if unix.Unmount("/run", unix.MNT_DETACH) == nil {
			return ns + ": its mounts can be unmounted", nil
		}
	}
	return "", last
}

// mountNamespaces asks the kernel for all others (Linux 6.12).
func mountNamespaces() (string, error) {
	unix.Unshare(unix.CLONE_FS)
	const next, previous = 0x8010b70b, 0x8010b70c // NS_MNT_GET_NEXT, NS_MNT_GET_PREV
	n := 0
	var last error
	for _, request := range []uintptr{next, previous} {
		fd, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		for range 10000 {
			info := struct {
				size, mounts uint32
				id           uint64
			}{size: 16}
			got, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&info)))
			if errno != 0 {
				last = errno
				break
			}
			n++
			fd = int(got)
			if unix.Setns(fd, unix.CLONE_NEWNS) != nil {
				continue
			}
			if how, _ := seen(""); how != "" {
				return how, nil
			}
		}
	}
	return "", fmt.Errorf("%d namespaces, then %v", n, last)
}

// namespaceHandles guesses handles near that of its own (Linux 6.18).
func namespaceHandles() (string, error) {
	unix.Unshare(unix.CLONE_FS)
	own, _, err := unix.NameToHandleAt(unix.AT_FDCWD, "/proc/thread-self/ns/mnt", unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return "", err
	}
	at, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	id := *(*uint64)(unsafe.Pointer(&own.Bytes()[0]))
	for d := range uint64(400) {
		b := append([]byte(nil), own.Bytes()...)
		*(*uint64)(unsafe.Pointer(&b[0])) = id - d
		for inode := range uint32(400) {
			*(*uint32)(unsafe.Pointer(&b[12])) -= inode
			var fd int
			fd, err = unix.OpenByHandleAt(at, unix.NewFileHandle(own.Type(), b), unix.O_RDONLY)
			if err != nil {
				continue
			}
			if unix.Setns(fd, unix.CLONE_NEWNS) == nil {
				if how, _ := seen(""); how != "" {
					return how, nil
				}
			}
			unix.Close(fd)
		}
	}
	return "", err
}

func parentUserNamespace() (string, error) {
	fd, err := unix.Open("/proc/self/ns/user", unix.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	const getParent = 0xb702 // NS_GET_PARENT
	parent, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), getParent, 0)
	if errno == 0 {
		return fmt.Sprintf("got descriptor %d", parent), nil
	}
	// That of the guest owns what a command may have no power over.
	for _, ns := range []string{"mnt", "net", "pid", "ipc", "uts"} {
		fd, err := unix.Open("/proc/self/ns/"+ns, unix.O_RDONLY, 0)
		if err != nil {
			return "", err
		}
		const getUser = 0xb701 // NS_GET_USERNS
		owner, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), getUser, 0)
		if errno != 0 {
			return fmt.Sprintf("the %s namespace belongs to another user namespace: %v", ns, errno), nil
		}
		var a, b unix.Stat_t
		unix.Fstat(int(owner), &a)
		unix.Stat("/proc/self/ns/user", &b)
		if a.Ino != b.Ino {
			return "the " + ns + " namespace belongs to another user namespace", nil
		}
	}
	return "", errno
}

// processesByNumber looks for processes that its proc does not show.
func processesByNumber() (string, error) {
	for pid := 1; pid < 10000; pid++ {
		_, err := os.Stat("/proc/" + strconv.Itoa(pid))
		if shown := err == nil; shown || isThread(pid) {
			continue
		}
		if unix.Kill(pid, 0) == nil {
			return fmt.Sprintf("process %d, which is not shown, can be killed", pid), nil
		}
		if _, err := unix.PidfdOpen(pid, 0); err == nil {
			return fmt.Sprintf("process %d, which is not shown, can be opened", pid), nil
		}
	}
	return "", errNothing
}

func isThread(pid int) bool {
	t, _ := filepath.Glob("/proc/[0-9]*/task/" + strconv.Itoa(pid))
	return len(t) > 0
}

func traceByNumber() (string, error) {
	var b [8]byte
	local := []unix.Iovec{{Base: &b[0], Len: 8}}
	for pid := 2; pid < 2000; pid++ {
		if pid == os.Getpid() || pid == os.Getppid() {
			continue
		}
		f, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && (!strings.Contains(string(f), "agent") || isThread(pid)) {
			continue // ours, or init's, which has no more rights than this
		}
		if unix.PtraceSeize(pid) == nil {
			return fmt.Sprintf("process %d can be traced: %s", pid, f), nil
		}
		remote := []unix.RemoteIovec{{Base: 0x400000, Len: 8}}
		if _, err := unix.ProcessVMReadv(pid, local, remote, 0); err == nil {
			return fmt.Sprintf("the memory of process %d can be read: %s", pid, f), nil
		}
	}
	return "", errNothing
}

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
		for _, file := range []string{"sys/kernel/core_pattern", "sys/kernel/modprobe", "sys/kernel/hotplug", "sys/vm/drop_caches",
			"sys/kernel/panic", "sys/fs/protected_symlinks", "sysrq-trigger", "irq/default_smp_affinity", "kcore"} {
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
		for _, file := range []string{"/kernel/uevent_seqnum", "/kernel/mm/transparent_hugepage/enabled", "/kernel/mm/ksm/run", "/power/state",
			"/kernel/profiling", "/block/loop0/queue/read_ahead_kb", "/module/loop/parameters/max_loop", "/firmware/efi/vars"} {
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
	var err error
	for _, dir := range []string{"/var/tmp", "/mnt", "/tmp", "/dev/shm"} {
		for _, dev := range []struct{ mode, major, minor uint32 }{{unix.S_IFBLK, 254, 0}, {unix.S_IFBLK, 7, 0}, {unix.S_IFCHR, 1, 1}, {unix.S_IFCHR, 1, 11}} {
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
	for _, name := range []string{"mem", "kmsg", "loop-control", "loop0", "vda", "sda", "nvme0n1", "mapper/control", "console", "tty0", "input"} {
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
