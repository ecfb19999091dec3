package machined

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/fixtures"
)

// onMachine runs tests of this package on a machine that is like this one but
// for its mounts: they propagate otherwise, and script changes them.
func onMachine(t *testing.T, propagation, script, tests string) {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Systemd)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	payload, err := buildPayload()
	if err != nil {
		t.Fatal(err)
	}
	// A cgroup namespace, as a container has one: mounted from the machine's,
	// cgroup2 would change its flags for the whole machine.
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--propagation", propagation, "--cgroup",
		"sh", "-euc", script+"\n"+`exec "$@"`, "sh", exe, "-test.v", "-test.count=1", "-test.run", tests)
	cmd.Env = append(os.Environ(), payloadVariable+"="+payload)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: ") {
		t.Errorf("%v\n%s", err, out)
	}
}

// A private host starts wherever the machine has cgroup2, and where it has it
// nowhere.
func TestCgroupLayouts(t *testing.T) {
	const nothing = "umount --recursive --lazy /sys/fs/cgroup\n"
	const unified = nothing + "mount -t cgroup2 cgroup2 /sys/fs/cgroup\n"
	for name, script := range map[string]string{
		"nowhere":   nothing,
		"unified":   unified,
		"read-only": unified + "mount -o remount,bind,ro /sys/fs/cgroup",
		"hybrid": nothing + "mount -t tmpfs tmpfs /sys/fs/cgroup\nmkdir /sys/fs/cgroup/unified\n" +
			"mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified",
	} {
		t.Run(name, func(t *testing.T) { onMachine(t, "private", script, "^TestContainerRuns$") })
	}
}

// A machine whose root filesystem is an overlay over $tree. It has this one's devices,
// cgroups and temporary directory, and this package. It is pivot_root and not chroot, in which the kernel
// makes no user namespaces.
const otherRoot = `
here=$PWD
root=$(mktemp -d)
mount -t tmpfs tmpfs "$root"
mkdir "$root/upper" "$root/work" "$root/merged"
mount -t overlay -o "lowerdir=$tree,upperdir=$root/upper,workdir=$root/work" overlay "$root/merged"
cd "$root/merged"
for dir in /proc /sys /dev; do mount --rbind "$dir" ".$dir"; done
for dir in "$here" "$TMPDIR" "$(dirname "$1")"; do
	mkdir -p ".$dir"
	mount --bind "$dir" ".$dir"
done
mount -t tmpfs tmpfs run
mkdir old
pivot_root . old
umount -l /old
cd "$here"`

// On Debian 13 systemd is 257 and the bus is dbus-broker.
func TestOtherHost(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Systemd)
	onMachine(t, "private", "tree="+fixtures.HostTree(t)+otherRoot, "^("+strings.Join([]string{
		"TestContainerRuns", "TestExitStatus", "TestTerminate", "TestStartFailures", "TestStartCancelled", "TestImages",
		"TestPrivateUsers", "TestPrivateNetwork", "TestNothingIsLeft", "TestLauncher", "TestDevices", "TestOwnDevices", "TestSystemHost",
	}, "|")+")$")
}

func TestUnmountPropagation(t *testing.T) {
	for _, propagation := range []string{"private", "shared"} {
		t.Run(propagation, func(t *testing.T) { onMachine(t, propagation, "", "^TestUnmount$") })
	}
}

// A filesystem that is unmounted while a private host runs is released at once.
func TestUnmount(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Systemd)
	image := makeImage(t, false)
	dir, err := os.MkdirTemp("/var/tmp", "imgmut-test-") // not below what the host is to see
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	runTool(t, "", "mount", "-o", "loop", image, dir)
	mounted := true
	defer func() {
		if mounted {
			runTool(t, "", "umount", dir)
		}
	}()
	if len(loopsOf(t, image)) == 0 {
		t.Fatal("the mounted image has no loop device")
	}
	openTestHost(t)
	runTool(t, "", "umount", dir)
	mounted = false
	for deadline := time.Now().Add(2 * time.Second); len(loopsOf(t, image)) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the filesystem is unmounted and still busy")
		}
	}
}

// loopsOf names the loop devices on a file.
func loopsOf(t *testing.T, file string) (loops []string) {
	t.Helper()
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if backing, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(backing)) == file {
			loops = append(loops, strings.Split(name, "/")[3])
		}
	}
	return loops
}

// A private host has directories of its own where programs leave things, and
// of the machine's sees what it was asked to show.
func TestPrivateHostSeesLittle(t *testing.T) {
	h := openTestHost(t)
	root := fmt.Sprintf("/proc/%d/root", h.PID())
	for path, own := range map[string]bool{
		"/tmp": true, "/var/tmp": true, "/run": true, "/dev/shm": true, "/sys/fs/cgroup": true,
		"/usr": false, os.TempDir(): false, machinedPool: false,
	} {
		theirs, err := os.Stat(root + path)
		if err != nil {
			t.Fatal(err)
		}
		if ours, err := os.Stat(path); os.SameFile(theirs, ours) == own {
			t.Errorf("%s of the private host is its own: %v, want %v (%v)", path, !own, own, err)
		}
	}
	for _, path := range []string{"/home", "/root", "/mnt", "/media", "/boot", "/var/log"} {
		if _, err := os.Stat(root + path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a private host sees %s (%v)", path, err)
		}
	}
}

// Where machined has no pool yet, one that is made later is seen all the same.
func TestLatePool(t *testing.T) {
	onMachine(t, "private", "mount -t tmpfs tmpfs /var/lib", "^TestImages$/^bare$")
}

// A path may hold another, and be below a directory that is the host's own.
func TestPaths(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Systemd)
	var paths []string
	for _, parent := range []string{os.TempDir(), "/dev/shm", "/run"} {
		dir, err := os.MkdirTemp(parent, "imgmut-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte(dir), 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, dir, filepath.Join(dir, "file"))
	}
	h, err := Open(t.Context(), Options{Mode: Private, Init: initCommand, Paths: append(paths, os.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for _, path := range paths {
		theirs, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", h.PID(), path))
		if err != nil {
			t.Error(err)
			continue
		}
		if ours, err := os.Stat(path); !os.SameFile(ours, theirs) {
			t.Errorf("%s is another one in the host (%v)", path, err)
		}
	}
}
