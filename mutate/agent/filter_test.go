package agent

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
)

// TestFilteredCalls: what is forbidden fails, syncs succeed without being made, and
// nothing else changes, in this process and those it starts. In another process, for it
// is for good.
func TestFilteredCalls(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	const again = "IMGMUT_TEST_FILTER_CALLS"
	if os.Getenv(again) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFilteredCalls$")
		cmd.Env = append(os.Environ(), again+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := unix.Fsync(-1); err != unix.EBADF {
		t.Fatalf("before: %v", err)
	}
	if err := filterCalls(); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"fsync": unix.Fsync(-1), "fdatasync": unix.Fdatasync(-1), "syncfs": unix.Syncfs(-1),
		"sync_file_range": unix.SyncFileRange(-1, 0, 0, 0),
	} {
		if err != nil {
			t.Errorf("%s is made: %v", name, err)
		}
	}
	if err := unix.Close(-1); err != unix.EBADF {
		t.Errorf("close: %v", err)
	}
	socket := func(family, protocol int) error {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		unix.Close(fd)
		return err
	}
	call := func(number uintptr) error {
		if _, _, errno := unix.Syscall(number, 0, 0, 0); errno != 0 {
			return errno
		}
		return nil
	}
	ioctl := func(request uintptr) error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, ^uintptr(0), request, 0)
		return errno
	}
	for _, tc := range []struct {
		name string
		got  error
		want error
	}{
		{"keys", call(unix.SYS_KEYCTL), unix.EPERM}, {"the clock", call(unix.SYS_SETTIMEOFDAY), unix.EPERM},
		{"programs in the kernel", call(unix.SYS_BPF), unix.EPERM}, {"modules", call(unix.SYS_INIT_MODULE), unix.EPERM},
		{"io_uring", call(unix.SYS_IO_URING_SETUP), unix.ENOSYS}, {"a call of tomorrow", call(4000), unix.ENOSYS},
		{"the hypervisor", socket(unix.AF_VSOCK, 0), unix.EAFNOSUPPORT},
		{"the audit", socket(unix.AF_NETLINK, unix.NETLINK_AUDIT), unix.EAFNOSUPPORT},
		{"a loop device", ioctl(unix.LOOP_CLR_FD), unix.EPERM}, {"a loop device that is set up", ioctl(unix.LOOP_CONFIGURE), unix.EPERM},
		{"a terminal", ioctl(unix.TCGETS), unix.EBADF}, {"a disk", ioctl(unix.BLKGETSIZE64), unix.EBADF},
		{"routes", socket(unix.AF_NETLINK, unix.NETLINK_ROUTE), nil},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, tc.got, tc.want)
		}
	}
	out, err := exec.Command("dd", "if=/dev/null", "of=/dev/null", "conv=fsync").CombinedOutput()
	if err != nil { // EINVAL for a device
		t.Errorf("a program that syncs: %v: %s", err, out)
	}
}

// TestFilterOfEachMachine: it can be made for all machines that imgmut is built for, and
// all names are of calls that one of them has.
func TestFilterOfEachMachine(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		f, err := callFilter(goarch)
		if err != nil || len(f) > unix.BPF_MAXINSNS {
			t.Errorf("%s: %d instructions, %v", goarch, len(f), err)
		}
	}
	if _, err := callFilter("mips"); err == nil {
		t.Error("there is one for a machine of which nothing is known")
	}
	f, _ := callFilter("arm64")
	for number, want := range map[uint32]uint32{0x0f0002: unix.SECCOMP_RET_ALLOW, 5000: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)} {
		if got := judge(f, uint32(arch.ARM.ID), number, [3]uint32{}); got != want {
			t.Errorf("call %#x of a program for ARM: %#x, want %#x", number, got, want)
		}
	}
	for _, name := range strings.Fields(strings.Join(append(append(forbidden, missing...), syncs...), " ")) {
		known := false
		for _, a := range []*arch.Info{arch.X86_64, arch.I386, arch.AARCH64, arch.ARM} {
			_, has := a.SyscallNames[name]
			known = known || has
		}
		if !known {
			t.Errorf("no machine has a call %s", name)
		}
	}
}

// TestFilterRefusesWhatNspawnDoes: whatever systemd-nspawn's own filter refuses, but for
// calls that its library had not heard of yet, which do no harm.
func TestFilterRefusesWhatNspawnDoes(t *testing.T) {
	const sleeper = "IMGMUT_TEST_FILTER_SLEEP"
	if os.Getenv(sleeper) != "" {
		fmt.Println("ready")
		time.Sleep(time.Minute)
		return
	}
	fixtures.Require(t, fixtures.Root, fixtures.Systemd)
	theirs := nspawnFilters(t, sleeper)
	ours, err := callFilter(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	harmless := strings.Fields(`cachestat getxattrat listxattrat removexattrat setxattrat open_tree_attr listmount statmount
		lsm_get_self_attr lsm_list_modules lsm_set_self_attr mseal uretprobe`)
	refused := 0
	for _, a := range []*arch.Info{arch.X86_64, arch.I386} {
		for number := uint32(0); number < 1000; number++ {
			for _, args := range [][3]uint32{{}, {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT}} {
				if !refuses(theirs, uint32(a.ID), number, args) {
					continue
				}
				refused++
				name := a.SyscallNumbers[int(number)]
				if !refuses([][]unix.SockFilter{ours}, uint32(a.ID), number, args) && !strings.Contains(strings.Join(harmless, " "), name) {
					t.Errorf("%s: call %d (%s) with %v is refused by systemd-nspawn alone", a.Name, number, name, args)
				}
			}
		}
	}
	if refused < 200 {
		t.Errorf("systemd-nspawn refuses %d calls: is that its filter?", refused)
	}
}

// nspawnFilters are those of a program that systemd-nspawn runs.
func nspawnFilters(t *testing.T, sleeper string) (filters [][]unix.SockFilter) {
	t.Helper()
	tree := t.TempDir()
	self, err := os.ReadFile(os.Args[0]) // static, as the tests are built
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"usr/lib/os-release": []byte("ID=test\n"), "usr/bin/test": self} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, name), b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--as-pid2", "--directory="+tree,
		"--setenv="+sleeper+"=1", "/usr/bin/test", "-test.run=^TestFilterRefusesWhatNspawnDoes$")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Signal(unix.SIGTERM); cmd.Wait() }()
	if line := make([]byte, 5); !readsReady(out.Read, line) {
		t.Fatalf("systemd-nspawn: %s", stderr.String())
	}
	return filtersOf(t, childNamed(t, "/usr/bin/test"))
}

func readsReady(read func([]byte) (int, error), line []byte) bool {
	n, err := read(line)
	return err == nil && strings.HasPrefix("ready", string(line[:n]))
}

// childNamed is the process that was started by that path.
func childNamed(t *testing.T, path string) int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range lines {
		if b, err := os.ReadFile(file); err == nil && bytes.HasPrefix(b, []byte(path+"\x00")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			return pid
		}
	}
	t.Fatal("the program is not to be found")
	return 0
}

// filtersOf reads the filters of a process (ptrace(2), PTRACE_SECCOMP_GET_FILTER).
func filtersOf(t *testing.T, pid int) (filters [][]unix.SockFilter) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceAttach(pid); err != nil {
		t.Fatal(err)
	}
	defer unix.PtraceDetach(pid)
	if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
		t.Fatal(err)
	}
	for n := uintptr(0); ; n++ {
		get := func(to unsafe.Pointer) (uintptr, unix.Errno) {
			length, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(pid), n, uintptr(to), 0, 0)
			return length, errno
		}
		length, errno := get(nil)
		if errno == unix.ENOENT {
			return filters
		}
		if errno != 0 {
			t.Fatal(errno)
		}
		f := make([]unix.SockFilter, length)
		if _, errno := get(unsafe.Pointer(&f[0])); errno != 0 {
			t.Fatal(errno)
		}
		filters = append(filters, f)
	}
}

func refuses(filters [][]unix.SockFilter, arch, number uint32, args [3]uint32) bool {
	for _, f := range filters {
		if judge(f, arch, number, args) != unix.SECCOMP_RET_ALLOW {
			return true
		}
	}
	return false
}

// judge runs a filter as the kernel does (networking/filter.rst), of which filters of
// system calls use a few instructions.
func judge(f []unix.SockFilter, arch, number uint32, args [3]uint32) uint32 {
	data := [16]uint32{0: number, 1: arch, 4: args[0], 6: args[1], 8: args[2]}
	var a uint32
	for at := 0; ; at++ {
		i, holds := f[at], false
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = data[i.K/4]
			continue
		case unix.BPF_RET | unix.BPF_K:
			return i.K
		case unix.BPF_JMP | unix.BPF_JA:
			at += int(i.K)
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= i.K
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			holds = a == i.K
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			holds = a > i.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			holds = a >= i.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			holds = a&i.K != 0
		default:
			panic(fmt.Sprintf("instruction %#x", i.Code))
		}
		if holds {
			at += int(i.Jt)
		} else {
			at += int(i.Jf)
		}
	}
}
