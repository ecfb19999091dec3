package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	shmKey = 0x1339
	mark   = "imgmut-left"
)

// leave leaves for another step what could live longer than this one.
func leave() {
	for _, dir := range []string{"/tmp", "/run", "/run/lock", "/dev/shm", "/dev"} {
		os.WriteFile(dir+"/"+mark, nil, 0o644)
	}
	unix.SysvShmGet(shmKey, 4096, unix.IPC_CREAT|0o666)
	name, _ := unix.BytePtrFromString(mark)
	unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), unix.O_CREAT|unix.O_RDWR, 0o666, 0, 0, 0)
	unix.AddKey("user", mark, []byte("x"), unix.KEY_SPEC_SESSION_KEYRING)
	unix.AddKey("user", mark, []byte("x"), unix.KEY_SPEC_USER_KEYRING)
	os.Mkdir("/var/tmp/"+mark, 0o755)
	unix.Mount("tmpfs", "/var/tmp/"+mark, "tmpfs", 0, "")
	os.WriteFile("/var/tmp/"+mark+"/on-the-mount", nil, 0o644)
	unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
	unix.Mount("tmpfs", "/mnt", "tmpfs", 0, "")
	os.WriteFile("/var/tmp/ns", nil, 0o644)
	unix.Mount("/proc/self/ns/net", "/var/tmp/ns", "", unix.MS_BIND, "")
	unix.Sethostname([]byte(mark))
	unix.Setdomainname([]byte(mark))
	// A process that nobody would find to end it.
	cmd := exec.Command("/bin/sh", "-c", "trap '' TERM HUP INT; exec setsid sleep 300")
	cmd.Start()
	fmt.Println("left held: all that")
}

// find looks for it.
func find() {
	report := func(name string, there bool) {
		if there {
			fmt.Printf("left %s broke: it is still there\n", name)
		} else {
			fmt.Printf("left %s held: gone\n", name)
		}
	}
	for _, dir := range []string{"/tmp", "/run", "/run/lock", "/dev/shm", "/dev"} {
		_, err := os.Lstat(dir + "/" + mark)
		report("in "+dir, err == nil)
	}
	_, err := unix.SysvShmGet(shmKey, 4096, 0o666)
	report("SysV shared memory", err == nil)
	_, err = os.Lstat("/dev/mqueue/" + mark)
	report("message queue", err == nil)
	session, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", mark, 0)
	report("key of the session", err == nil && session > 0)
	user, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", mark, 0)
	report("key of the user", err == nil && user > 0)
	_, err = os.Lstat("/var/tmp/" + mark + "/on-the-mount")
	report("mount", err == nil)
	report("shared mount", strings.Contains(strings.Join(mounts(), " ")+" ", "/mnt "))
	var st unix.Statfs_t
	unix.Statfs("/var/tmp/ns", &st)
	report("network namespace", st.Type == unix.NSFS_MAGIC)
	host, _ := os.Hostname()
	report("host name", host == mark)
	left := false
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, l := range lines {
		b, _ := os.ReadFile(l)
		left = left || strings.Contains(string(b), "sleep")
	}
	report("process", left)
}

// give hands its output, and the report of its init, to whoever listens on a socket.
func give(socket string) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket})
	if err != nil {
		fmt.Println("not given:", err)
		return
	}
	fds := []int{1}
	if report, err := os.OpenFile("/proc/1/fd/4", os.O_WRONLY, 0); err == nil {
		fds = append(fds, int(report.Fd()))
	}
	if _, _, err := c.WriteMsgUnix([]byte("x"), unix.UnixRights(fds...), nil); err == nil {
		_, err = c.Read(make([]byte, 1)) // it has them
	}
	fmt.Println("given:", err)
}
