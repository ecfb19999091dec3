package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

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
			own := points[i] == "/" || points[i] == "/dev/mqueue" || strings.HasPrefix(points[i], "/proc")
			if !own && unix.Unmount(points[i], unix.MNT_DETACH) == nil {
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
