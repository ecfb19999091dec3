package mount

import (
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// Users are the ids that a guest's users have on the machine. Id n of the image
// is Shift+n here, for every n below Size. The zero value is no translation: the
// image's users are the machine's.
type Users struct{ Shift, Size uint32 }

// None says that nothing is translated.
func (u Users) None() bool { return u.Size == 0 }

// All of a guest's ids are put where the machine has no users, as many as there are: an
// image may have owners of any number, those of a directory service have seven digits and
// more. Ids beyond 2^31 are nobody's: many programs keep ids in 31 bits (systemd's "Users,
// Groups, UIDs and GIDs"). Of those before, the last that systemd leaves unused are the
// guests' first: Linux 6.1 reads the group of terminals, which systemd-nspawn gives it for
// devpts, as a number with a sign.
const (
	firstUser  = lastUnused - guestUsers*span
	lastUnused = 0x7ffe0000 // where systemd's ids of foreign images begin
	guestUsers = 1024       // guests that have a root of their own; beyond, two may share one
	span       = 1 << 16
)

// mappedRoot is where the machine's root is in the image, if it makes a file
// there. It is systemd's UID_MAPPED_ROOT: without it systemd-nspawn, which sets up
// a guest as the machine's root, could make nothing in it (EOVERFLOW).
const mappedRoot = 1<<31 - 2

// GuestUsers are those of the guest of that name. The root users of two guests
// differ, so that neither may do to the other what root may do to its own.
func GuestUsers(name string) Users {
	h := fnv.New32a()
	h.Write([]byte(name))
	shift := h.Sum32() % guestUsers * span
	return Users{Shift: firstUser + shift, Size: mappedRoot}
}

// Namespace makes a user namespace that translates so, for mounts: mount_setattr(2)
// takes one. It is nil where nothing is translated.
func (u Users) Namespace() (*os.File, error) {
	if u.None() {
		return nil, nil
	}
	ids := []syscall.SysProcIDMap{
		{ContainerID: 0, HostID: int(u.Shift), Size: int(u.Size)}, {ContainerID: mappedRoot, HostID: 0, Size: 1},
	}
	// A namespace is made with a process. This one is traced, so it stops before the
	// first instruction of the program: which one that is means nothing.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Ptrace: true, Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make a user namespace (are they restricted? imgmut doctor tells): %w", err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	if err != nil {
		return nil, fmt.Errorf("open a user namespace: %w", err)
	}
	return ns, nil
}
