package machined

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const testOSRelease = "ID=imgmut-test\nVERSION_ID=1\n"

// makeTree makes the smallest tree that systemd-nspawn starts. It holds no program.
func makeTree(t *testing.T) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	for _, d := range []string{"dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/lib", "var/tmp"} {
		if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(tree, "usr/lib/os-release"), []byte(testOSRelease), 0o644); err != nil {
		t.Fatal(err)
	}
	return tree
}

// mapped changes c, a container over a tree on the host, into one whose users are
// others on the machine: its launcher mounts the tree so that what is owned by n there
// belongs to user n of the container.
func mapped(c Container, shift, users uint32) Container {
	program, _ := os.Executable() // without, it is a launcher that does not exist
	place := "/run/" + c.Name + "/tree"
	c.Launcher = []string{program, argLaunch, fmt.Sprint(shift), fmt.Sprint(users), c.Directory, place}
	c.Directory, c.RuntimeDirectory, c.UserShift, c.Users = place, c.Name, shift, users
	return c
}

// launch is a [Container.Launcher]: SHIFT USERS TREE PLACE COMMAND... mounts TREE on
// PLACE, which it makes, where only the command sees it.
func launch(args []string) error {
	runtime.LockOSThread() // a mount namespace belongs to a thread, and execve keeps the calling one
	shift, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	users, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	tree, place, command := args[2], args[3], args[4:]
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return err
	}
	m, err := unix.OpenTree(unix.AT_FDCWD, tree, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: tree, Err: err}
	}
	if users > 0 {
		if err := mapMount(m, shift, users); err != nil {
			return fmt.Errorf("map %s: %w", tree, err)
		}
	}
	if err := os.Mkdir(place, 0o700); err != nil {
		return err
	}
	if err := unix.MoveMount(m, "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "move_mount", Path: place, Err: err}
	}
	return fmt.Errorf("execute %s: %w", command[0], unix.Exec(command[0], command, os.Environ()))
}

// mapMount gives a detached mount the users of a user namespace, and the machine's
// root, as which systemd-nspawn makes files, an id of its own (systemd's
// UID_MAPPED_ROOT).
func mapMount(mount, shift, users int) error {
	ids := []syscall.SysProcIDMap{{HostID: shift, Size: users}, {ContainerID: 1<<31 - 2, HostID: 0, Size: 1}}
	// Traced, it stops before it does anything.
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids,
		Ptrace: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	if err != nil {
		return err
	}
	defer namespace.Close()
	return unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH,
		&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(namespace.Fd())})
}
