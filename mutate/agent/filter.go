package agent

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// A command's system calls are filtered (seccomp(2)). systemd-nspawn would do that too,
// but compiles its filter anew for each container, which takes a third of its start. This
// one refuses whatever that refuses, for programs of 64 and of 32 bits.

// forbidden are the system calls that act on the machine, or on more than a namespace
// shows, whoever is root: on its clock, modules, kernel and devices; on keys and counters,
// which know no namespaces; on files by their number; on memory that is never swapped.
var forbidden = strings.Fields(`
	adjtimex clock_adjtime clock_adjtime64 clock_settime clock_settime64 settimeofday stime
	create_module delete_module finit_module get_kernel_syms init_module query_module
	acct kexec_file_load kexec_load quotactl quotactl_fd reboot swapoff swapon syslog
	ioperm iopl modify_ldt vm86 vm86old
	add_key keyctl request_key
	bpf lookup_dcookie perf_event_open pidfd_getfd process_mrelease
	fanotify_init fanotify_mark open_by_handle_at
	memfd_secret mlock mlock2 mlockall munlock munlockall pkey_alloc pkey_free pkey_mprotect
`)

// missing are those that are answered as a kernel does that lacks them, so that programs
// do without. io_uring makes files and sockets, and syncs, past any filter.
var missing = strings.Fields(`
	_sysctl afs_syscall bdflush break ftime getpmsg gtty idle lock mpx nfsservctl prof profil putpmsg security
	sgetmask ssetmask stty sysfs tuxcall ulimit uselib ustat vserver
	futex_requeue futex_wait futex_wake landlock_add_rule landlock_create_ruleset landlock_restrict_self map_shadow_stack
	io_uring_enter io_uring_register io_uring_setup
`)

// syncs wait until data is on the disk. A step need not wait: the fork is thrown away if
// anything goes wrong, and otherwise the engine syncs it as a whole.
var syncs = strings.Fields(`fsync fdatasync sync syncfs sync_file_range msync`)

// families are the sockets that no command gets: to the machine's hypervisor or its
// guests, which know no network namespaces; and to the machine's audit.
var families = []struct{ family, protocol uint32 }{{unix.AF_VSOCK, anyProtocol}, {unix.AF_NETLINK, unix.NETLINK_AUDIT}}

const anyProtocol = ^uint32(0)

// filterCalls filters the system calls of this thread, and of all that it starts, for good.
func filterCalls() error {
	filter, err := callFilter(runtime.GOARCH)
	if err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	return nil
}

// callFilter makes the filter for a kernel of that architecture, which runs programs of
// two. What is of neither is missing.
func callFilter(goarch string) ([]unix.SockFilter, error) {
	programs, ok := map[string][]*arch.Info{"amd64": {arch.X86_64, arch.I386}, "arm64": {arch.AARCH64, arch.ARM}}[goarch]
	if !ok {
		return nil, errors.New("filter system calls: those of " + goarch + " are not known")
	}
	filter := []unix.SockFilter{load(4)} // the architecture, in struct seccomp_data (linux/seccomp.h)
	for _, a := range programs {
		rules := rulesFor(a)
		filter = append(filter, jump(unix.BPF_JEQ, uint32(a.ID), 1, 0),
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(rules))})
		filter = append(filter, rules...)
	}
	return append(filter, answer(unix.ENOSYS)), nil
}

// rulesFor decides about the calls of one architecture.
func rulesFor(a *arch.Info) []unix.SockFilter {
	last := uint32(0)
	for number := range a.SyscallNumbers {
		if number < armOwn {
			last = max(last, uint32(number))
		}
	}
	rules := []unix.SockFilter{load(0)} // the number of the call
	if a == arch.ARM {
		rules = append(rules, jump(unix.BPF_JGE, armOwn, 0, 1), allow)
	}
	rules = append(rules, jump(unix.BPF_JGT, last, 0, 1), answer(unix.ENOSYS)) // newer ones, and those of the ABI x32, which nobody uses
	for _, group := range []struct {
		names  []string
		answer unix.SockFilter
	}{{forbidden, answer(unix.EPERM)}, {missing, answer(unix.ENOSYS)}, {syncs, answer(0)}} {
		for _, name := range group.names {
			if number, ok := a.SyscallNames[name]; ok {
				rules = append(rules, jump(unix.BPF_JEQ, uint32(number), 0, 1), group.answer)
			}
		}
	}
	return append(slices.Concat(rules, loopRules(a), socketRules(a)), allow)
}

// loopRules refuse what is done to loop devices (linux/loop.h, LOOP_SET_FD to 0x4C0F). A
// command may get one to write to: with these calls it could show other bytes of the file
// behind it, or have it stay when all else has ended.
func loopRules(a *arch.Info) []unix.SockFilter {
	return []unix.SockFilter{
		jump(unix.BPF_JEQ, uint32(a.SyscallNames["ioctl"]), 0, 5),
		load(24), // the second argument
		jump(unix.BPF_JGE, unix.LOOP_SET_FD, 0, 2),
		jump(unix.BPF_JGT, unix.LOOP_SET_FD+0xf, 1, 0),
		answer(unix.EPERM),
		allow,
	}
}

// armOwn is the first of ARM's private calls, of which all do no harm (asm/unistd.h).
const armOwn = 0x0f0000

// socketRules refuse sockets of families. The one call by which programs for i386 may do
// all that concerns sockets (socketcall(2)) has its arguments in memory, which no filter
// sees.
func socketRules(a *arch.Info) (rules []unix.SockFilter) {
	for _, f := range families {
		check := []unix.SockFilter{load(16), jump(unix.BPF_JEQ, f.family, 0, 1)} // the first argument
		if f.protocol != anyProtocol {
			check = append(check[:1], jump(unix.BPF_JEQ, f.family, 0, 3), load(32), jump(unix.BPF_JEQ, f.protocol, 0, 1))
		}
		rules = append(rules, append(check, answer(unix.EAFNOSUPPORT))...)
	}
	call := jump(unix.BPF_JEQ, uint32(a.SyscallNames["socket"]), 0, uint8(len(rules)))
	return slices.Insert(rules, 0, call)
}

var allow = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}

// answer ends a call that is not made. 0 is success.
func answer(errno unix.Errno) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func jump(condition uint16, value uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | condition | unix.BPF_K, Jt: yes, Jf: no, K: value}
}
