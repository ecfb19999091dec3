package machined

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

func TestContainerCheck(t *testing.T) {
	good := Container{Name: "a.b-1", Directory: "/x", Command: []string{"/x"}, Launcher: []string{"/y", "z"},
		RuntimeDirectory: "a", UserShift: 1 << 31, Users: 1<<31 - 1, Binds: []Bind{{"/x", "/y", true}}, Devices: []string{"/dev/block/7:1"}}
	if err := good.check(); err != nil {
		t.Errorf("check() = %v", err)
	}
	for want, spoil := range map[string]func(c *Container){
		`name "under_score"`:         func(c *Container) { c.Name = "under_score" },
		`name ""`:                    func(c *Container) { c.Name = "" },
		"64 bytes":                   func(c *Container) { c.Name = strings.Repeat("a", 65) },
		`directory "x"`:              func(c *Container) { c.Directory = "x" },
		"no command":                 func(c *Container) { c.Command = nil },
		`launcher "y"`:               func(c *Container) { c.Launcher[0] = "y" },
		`runtime directory "a/b"`:    func(c *Container) { c.RuntimeDirectory = "a/b" },
		`runtime directory ".."`:     func(c *Container) { c.RuntimeDirectory = ".." },
		"2147483648 users from 2147": func(c *Container) { c.Users++ },
		"0 users from 1":             func(c *Container) { c.UserShift, c.Users = 1, 0 },
		"device /dev/vda":            func(c *Container) { c.Devices = []string{"/dev/vda"} },
		"device block-loop":          func(c *Container) { c.Devices = []string{"block-loop"} },
		"device /dev/block/7:1 ":     func(c *Container) { c.Devices = []string{"/dev/block/7:1 /dev/block/8:0"} },
		"bind x on /y":               func(c *Container) { c.Binds[0].Source = "x" },
		"bind /x on y":               func(c *Container) { c.Binds[0].Target = "y" },
	} {
		bad := good
		bad.Launcher, bad.Binds = slices.Clone(good.Launcher), slices.Clone(good.Binds)
		spoil(&bad)
		if err := bad.check(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("check() of %+v = %v, want it to mention %q alone", bad, err, want)
		}
	}
}

// A container may have much of the machine's memory, and not all.
func TestMemoryIsBounded(t *testing.T) {
	h := openTestHost(t)
	c := payloadContainer(t, makeTree(t), "copy")
	run := mustStart(t, h, c)
	var machine unix.Sysinfo_t
	if err := unix.Sysinfo(&machine); err != nil {
		t.Fatal(err)
	}
	total := machine.Totalram * uint64(machine.Unit)
	var limit uint64
	unit := h.conns.bus.Object(systemdName, systemdPath+"/unit/"+dbus.ObjectPath(sd.PathBusEscape(c.Name+".service")))
	if err := property(t.Context(), unit, systemdName+".Service", "MemoryMax", &limit); err != nil {
		t.Fatal(err)
	}
	if limit < 1<<20 || limit > total/100*76 { // less than three quarters where something bounds the machine
		t.Errorf("MemoryMax is %d, the machine has %d", limit, total)
	}
	_ = run.stdin.Close()
	if err := run.machine.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

// A command's words must reach it as they are: PID 1 would expand variables.
func TestCommandIsNotExpanded(t *testing.T) {
	h := openTestHost(t)
	words := []string{"$HOME", "${PATH}", "%n", "$$", "two words", `back\slash`, "-x", "--", ""}
	run := mustStart(t, h, payloadContainer(t, makeTree(t), append([]string{"args"}, words...)...))
	if err := run.machine.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := run.stdout.String(), strings.Join(words, "\n"); got != want {
		t.Errorf("the command saw %q, want %q", got, want)
	}
}

func TestReadOnly(t *testing.T) {
	h := openTestHost(t)
	tree := makeTree(t)
	for _, readOnly := range []bool{false, true} {
		c := payloadContainer(t, tree, "write", "/root/file")
		c.ReadOnly = readOnly
		run := mustStart(t, h, c)
		err := run.machine.Wait(t.Context())
		if refused := err != nil && strings.Contains(run.stderr.String(), "read-only file system"); refused != readOnly {
			t.Errorf("ReadOnly %v: Wait() = %v, stderr %q", readOnly, err, run.stderr)
		}
	}
}

// The container's users are nobody's on the machine. What they own is theirs in the
// container, and what they make has the same owner in the tree.
func TestPrivateUsers(t *testing.T) {
	h := openTestHost(t)
	for name, ids := range map[string]struct{ shift, users uint32 }{
		"none": {0, 0}, "of one system": {0x90000, 0x10000}, "all": {1 << 31, 1<<31 - 3},
	} {
		t.Run(name, func(t *testing.T) {
			tree := makeTree(t)
			theirs, made := filepath.Join(tree, "root/theirs"), filepath.Join(tree, "root/made")
			if err := os.WriteFile(theirs, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(theirs, 1000, 1001); err != nil {
				t.Fatal(err)
			}
			run := mustStart(t, h, mapped(payloadContainer(t, tree, "users", "/root/theirs", "/root/made"), ids.shift, ids.users))
			if err := run.machine.Wait(t.Context()); err != nil {
				t.Fatalf("Wait() = %v, stderr %q", err, run.stderr)
			}
			users := ids.users
			if users == 0 {
				users = 1<<32 - 1
			}
			want := fmt.Sprintf("0 %d %d\nowner 1000 1001\n", ids.shift, users)
			if got := run.stdout.String(); got != want {
				t.Errorf("the container says %q, want %q", got, want)
			}
			var st unix.Stat_t
			if err := unix.Stat(made, &st); err != nil || st.Uid != 0 || st.Gid != 0 {
				t.Errorf("root of the container made a file of %d:%d, %v", st.Uid, st.Gid, err)
			}
		})
	}
}

// Its root may make device nodes, and open none of the machine's disks.
func TestDevices(t *testing.T) {
	h := openTestHost(t)
	tree := makeTree(t)
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	loop := strings.TrimSpace(runTool(t, "", "losetup", "--find", "--show", disk))
	defer runTool(t, "", "losetup", "--detach", loop)
	var st unix.Stat_t
	if err := unix.Stat(loop, &st); err != nil {
		t.Fatal(err)
	}
	own := fmt.Sprintf("/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	for name, tc := range map[string]struct {
		kind         string
		major, minor uint32
		opens        bool
		devices      []string // that it may open
	}{
		"null":         {"c", 1, 3, true, nil},
		"disk":         {"b", unix.Major(st.Rdev), unix.Minor(st.Rdev), false, nil},
		"own disk":     {"b", unix.Major(st.Rdev), unix.Minor(st.Rdev), false, []string{own}}, // it may not make a node of it
		"partition":    {"b", 259, 0, false, []string{own}},
		"loop-control": {"c", 10, 237, false, []string{own}},
		"fuse":         {"c", 10, 229, false, nil},
		"mem":          {"c", 1, 1, false, nil},
		"kmsg":         {"c", 1, 11, false, nil},
		"tun":          {"c", 10, 200, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := payloadContainer(t, tree, "device", tc.kind, fmt.Sprint(tc.major), fmt.Sprint(tc.minor))
			c.Devices = tc.devices
			run := mustStart(t, h, c)
			err := run.machine.Wait(t.Context())
			if refused := strings.Contains(run.stderr.String(), "operation not permitted"); (err == nil) != tc.opens || refused == tc.opens {
				t.Errorf("Wait() = %v, stderr %q; want it to open: %v", err, run.stderr, tc.opens)
			}
		})
	}
}

// One that is given a node of a disk opens that if it may, and no other.
func TestOwnDevices(t *testing.T) {
	h := openTestHost(t)
	tree := makeTree(t)
	var numbers []string
	for _, name := range []string{"one", "two"} {
		disk := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(disk, []byte(strings.Repeat(name+"\n", 1024)), 0o644); err != nil {
			t.Fatal(err)
		}
		loop := strings.TrimSpace(runTool(t, "", "losetup", "--find", "--show", disk))
		defer runTool(t, "", "losetup", "--detach", loop)
		var st unix.Stat_t
		if err := unix.Stat(loop, &st); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mknod(filepath.Join(tree, name), unix.S_IFBLK|0o600, int(st.Rdev)); err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, fmt.Sprintf("/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	}
	for name, opens := range map[string]bool{"one": true, "two": false} {
		c := payloadContainer(t, tree, "cat", "/"+name)
		c.Devices = numbers[:1]
		run := mustStart(t, h, c)
		err := run.machine.Wait(t.Context())
		if (err == nil) != opens || strings.HasPrefix(run.stdout.String(), name+"\n") != opens {
			t.Errorf("%s: Wait() = %v, stderr %q; want it to open: %v", name, err, run.stderr, opens)
		}
	}
}

func TestCapabilities(t *testing.T) {
	h := openTestHost(t)
	c := payloadContainer(t, makeTree(t), "cat", "/proc/self/status")
	c.AddCapabilities = []string{"CAP_NET_ADMIN"}
	c.DropCapabilities = []string{"CAP_MKNOD", "CAP_SYS_PTRACE"}
	run := mustStart(t, h, c)
	if err := run.machine.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(run.stdout.String(), "CapEff:")
	var set uint64
	if _, err := fmt.Sscanf(rest, "%x", &set); err != nil {
		t.Fatal(err)
	}
	// Numbers from linux/capability.h.
	for bit, want := range map[int]bool{12: true, 27: false, 19: false, 22: false, 0: true} {
		if got := set&(1<<bit) != 0; got != want {
			t.Errorf("capability %d = %v, want %v (set %x)", bit, got, want, set)
		}
	}
}

// The unit's environment is for systemd-nspawn and goes no further.
func TestEnvironment(t *testing.T) {
	h := openTestHost(t)
	tree := makeTree(t)
	read := func(path string) string {
		c := payloadContainer(t, tree, "cat", path)
		c.Environment = []string{"SYSTEMD_NSPAWN_TMPFS_TMP=0", "IMGMUT_TEST=leaked"}
		run := mustStart(t, h, c)
		if err := run.machine.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		return run.stdout.String()
	}
	if got := read("/proc/self/mounts"); strings.Contains(got, " /tmp ") {
		t.Errorf("systemd-nspawn did not see its variable: /tmp is a mount in\n%s", got)
	}
	if got := read("/proc/self/environ"); strings.Contains(got, "leaked") || !strings.Contains(got, "container=") {
		t.Errorf("the command's environment is %q", got)
	}
}

// systemd-nspawn's messages are in English, whatever the machine speaks.
func TestLanguage(t *testing.T) {
	h := openTestHost(t)
	run := mustStart(t, h, payloadContainer(t, makeTree(t), "sleep"))
	environ := fmt.Sprintf("/proc/%d/root/proc/%d/environ", h.PID(), mainPID(t, h, run.machine.unit.name))
	got, err := os.ReadFile(environ)
	if err != nil || !strings.Contains("\x00"+string(got), "\x00LC_ALL=C\x00") {
		t.Errorf("systemd-nspawn's environment is %q, %v, want LC_ALL=C in it", got, err)
	}
}

func TestPrivateNetwork(t *testing.T) {
	h := openTestHost(t)
	tree := makeTree(t)
	machine, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	for _, private := range []bool{false, true} {
		for _, users := range []uint32{0, 0x10000} {
			c := payloadContainer(t, tree, "cat", "/proc/net/dev")
			c.PrivateNetwork = private
			c.AddCapabilities = []string{"CAP_NET_ADMIN"}
			if users > 0 {
				c = mapped(c, 0x90000, users)
			}
			run := mustStart(t, h, c)
			if err := run.machine.Wait(t.Context()); err != nil {
				t.Fatalf("Wait() = %v, stderr %q", err, run.stderr)
			}
			want := interfaces(string(machine))
			if private {
				want = []string{"lo"}
			}
			if got := interfaces(run.stdout.String()); !slices.Equal(got, want) {
				t.Errorf("PrivateNetwork %v, %d users: the container has %v, want %v", private, users, got, want)
			}
		}
	}
}

// interfaces are the names in /proc/net/dev.
func interfaces(dev string) (names []string) {
	for line := range strings.Lines(dev) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	slices.Sort(names)
	return names
}

// Colons separate the parts of a bind; paths may contain them all the same.
func TestBindPaths(t *testing.T) {
	h := openTestHost(t)
	source := t.TempDir() + `/with:colon and\backslash`
	if err := os.WriteFile(source, []byte("bound"), 0o644); err != nil {
		t.Fatal(err)
	}
	const target = `/run/a:b\c d`
	c := payloadContainer(t, makeTree(t), "cat", target)
	c.Binds = append(c.Binds, Bind{Source: source, Target: target})
	run := mustStart(t, h, c)
	if err := run.machine.Wait(t.Context()); err != nil {
		t.Fatalf("Wait() = %v, stderr %q", err, run.stderr)
	}
	if got := run.stdout.String(); got != "bound" {
		t.Errorf("the container read %q", got)
	}
}
