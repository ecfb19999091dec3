package agent

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/thread"
)

// fresh are the filesystems that are no part of the image, and through which one
// step could hand things to the next. Each command gets its own, so nothing need
// be cleared away after it, and the next does not miss what it removed. It cannot
// unmount them to see what systemd-nspawn has below.
var fresh = []struct {
	fs, dir, data string
	flags         uintptr
}{
	// With the limits that systemd-nspawn has for its own (nspawn-mount.c).
	{"tmpfs", "/run", "mode=0755,size=20%,nr_inodes=800k", unix.MS_NODEV},
	{"tmpfs", "/tmp", tmpData, unix.MS_NODEV},
	{"tmpfs", "/dev/shm", tmpData, unix.MS_NODEV},
	{"devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=620,gid=5", unix.MS_NOEXEC},
}

const tmpData = "mode=1777,size=10%,nr_inodes=400k"

// isDir says whether the image has a directory by that very path. Behind a
// link is a directory that the image has for other things: a mount there would
// hide what is in it, and lose what a step writes to it.
func isDir(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.IsDir()
}

// inFresh says whether a path, with all links resolved, is on one of them.
func inFresh(path string) bool {
	for _, f := range fresh {
		if strings.HasPrefix(path, f.dir+"/") && isDir(f.dir) {
			return true
		}
	}
	return false
}

// prepareGuest unmounts what systemd-nspawn mounted and no command may have. It
// need not be covered, because systemd-nspawn mounted it from within the guest's
// user namespace, where it can be unmounted.
func prepareGuest() error {
	// A proc with nothing mounted on it, without which no other can be mounted
	// from a user namespace below.
	proc, err := newKernelFS("proc", 0)
	if err != nil {
		return err
	}
	defer proc.Close()
	if err := unix.Unmount("/proc", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount /proc: %w", err)
	}
	if err := attach(proc, "/proc"); err != nil {
		return err
	}
	for _, dir := range []string{"/sys/fs/cgroup", "/dev/mqueue"} {
		err := unix.Unmount(dir, unix.MNT_DETACH)
		if err != nil && err != unix.EINVAL && err != unix.ENOENT { // no mount, or not ours to unmount
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if strings.Contains(string(table), " - cgroup") {
		if err := unix.Mount("tmpfs", "/sys/fs/cgroup", "tmpfs", unix.MS_RDONLY, "mode=0555"); err != nil {
			return fmt.Errorf("cover /sys/fs/cgroup: %w", err)
		}
	}
	if err := makeSys(); err != nil {
		return fmt.Errorf("make /sys: %w", err)
	}
	// A namespace of cgroups is what a command would need to mount them again, and
	// its own is the agent's as well.
	if err := os.WriteFile("/proc/sys/user/max_cgroup_namespaces", []byte("0"), 0); err != nil {
		return err
	}
	// systemd-nspawn is told not to mount it, because it follows links.
	if isDir("/tmp") {
		if err := unix.Mount("tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, tmpData); err != nil {
			return fmt.Errorf("mount /tmp: %w", err)
		}
	}
	return nil
}

// makeSys shows of /sys what systemd-nspawn shows with a private network, so that
// a step sees the same whether others of the run need the network or not. A sysfs
// shows the interfaces of the network namespace in which it was mounted, so this
// one is mounted in a new one and covers the machine's.
func makeSys() error {
	var st unix.Statfs_t
	if err := unix.Statfs("/sys", &st); err != nil || st.Type != unix.SYSFS_MAGIC {
		return err
	}
	var sys *os.File
	var err error
	thread.Own(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		// Never closed: a namespace that nobody holds is gone, with its loopback.
		if _, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return
		}
		sys, err = newKernelFS("sysfs", unix.MOUNT_ATTR_RDONLY)
	})
	if err != nil {
		return err
	}
	defer sys.Close()
	// Trees can be taken only from what is mounted somewhere.
	if err := attach(sys, "/sys"); err != nil {
		return err
	}
	shown := map[string]*os.File{}
	for _, dir := range []string{"block", "bus", "class", "dev", "devices", "kernel"} {
		const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE
		fd, err := unix.OpenTree(unix.AT_FDCWD, "/sys/"+dir, flags)
		if err != nil {
			return err
		}
		shown[dir] = os.NewFile(uintptr(fd), dir)
		defer shown[dir].Close()
	}
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("tmpfs", "/sys", "tmpfs", flags, "mode=0555"); err != nil {
		return err
	}
	for dir, tree := range shown {
		if err := os.Mkdir("/sys/"+dir, 0o755); err != nil {
			return err
		}
		if err := attach(tree, "/sys/"+dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll("/sys/fs/cgroup", 0o755); err != nil {
		return err
	}
	return unix.MountSetattr(unix.AT_FDCWD, "/sys", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// makeMounts gives the calling thread a mount namespace of its own with fresh
// filesystems.
func makeMounts(l Lend) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := l.show(); err != nil { // before /run covers it
		return err
	}
	for _, f := range fresh {
		if !isDir(f.dir) {
			continue
		}
		if err := unix.Mount(f.fs, f.dir, f.fs, unix.MS_NOSUID|f.flags, f.data); err != nil {
			return fmt.Errorf("mount a fresh %s: %w", f.dir, err)
		}
	}
	if err := os.Mkdir("/run/lock", 0o755); err != nil {
		return err
	}
	if err := os.Chmod("/run/lock", 0o777|fs.ModeSticky); err != nil {
		return err
	}
	// What is left of the tmpfs on /dev is read-only: its devices are not, as
	// they are not files of it.
	if err := unix.MountSetattr(unix.AT_FDCWD, "/dev", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make /dev read-only: %w", err)
	}
	return nil
}

// show shows what is lent.
func (l Lend) show() error {
	if l.Dev {
		if err := unix.Mount(filepath.Join(LentDir, "dev"), "/dev", "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("lend /dev: %w", err)
		}
	}
	for name, place := range l.Places {
		if !isDir(place) {
			return fmt.Errorf("lend %s: it is no directory any more", place)
		}
		if err := unix.Mount(filepath.Join(LentDir, name), place, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("lend %s: %w", place, err)
		}
	}
	return nil
}

// newKernelFS makes a proc or a sysfs that is not yet mounted anywhere. The one
// shows the process ids that the calling thread has, the other its network
// namespace.
func newKernelFS(kind string, attributes int) (*os.File, error) {
	fd, err := func() (int, error) {
		ctx, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
		if err != nil {
			return -1, err
		}
		defer unix.Close(ctx)
		if err := unix.FsconfigSetString(ctx, "source", kind); err != nil {
			return -1, err
		}
		if err := unix.FsconfigCreate(ctx); err != nil {
			return -1, err
		}
		attributes |= unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
		return unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, attributes)
	}()
	if err != nil {
		return nil, fmt.Errorf("make a new %s: %w", kind, err)
	}
	return os.NewFile(uintptr(fd), kind), nil
}

// attach mounts what is not yet mounted anywhere.
func attach(mount *os.File, dir string) error {
	err := unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	return nil
}

// maxHostname bounds what is read of the image's file for it.
const maxHostname = 4 << 10

// hostname is the image's own, so that what a step derives from it does not
// depend on where the image is built.
func hostname() string {
	b, err := readRegular("/etc/hostname", maxHostname)
	name := strings.TrimSpace(string(b))
	if err == nil && name != "" && len(name) <= 64 && !strings.ContainsAny(name, " \n#") {
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
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	return nil
}
