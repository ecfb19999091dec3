package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

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
		to, _ := os.Readlink(l)
		for _, bad := range []string{"socket:", "/memfd", "/proc/"} {
			if strings.HasPrefix(to, bad) {
				return l + " is " + to, nil
			}
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
