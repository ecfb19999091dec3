package mount

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
)

// Handover is what imgmut gives to the program of a guest's unit before that becomes
// systemd-nspawn: the mounts of the guest, and what the guest reads.
type Handover struct {
	Places []Place
	Owner  uint32   // id of the guest's root on the machine
	Lent   []Lent   `json:",omitempty"` // the directory of what is lent first, if there is one
	Stdin  *os.File `json:"-"`
}

// maxHandover bounds the text of a handover, in bytes. It has some hundred of them
// for each mount.
const maxHandover = 256 << 10

// Send sends a handover, with the descriptors, over a stream socket. The receiver need
// not be there yet. Mounts are the receiver's afterwards, as well as the sender's.
func (h Handover) Send(socket *os.File) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if len(text) > maxHandover {
		return fault.New(fault.Image, "mount less at the start", "hand over %d mounts: more than fits into a message", len(h.Places))
	}
	fds := []int{int(h.Stdin.Fd())}
	for _, p := range h.Places {
		if p.Mount != nil {
			fds = append(fds, int(p.Mount.Fd()))
		}
	}
	for _, l := range h.Lent {
		fds = append(fds, int(l.Mount.Fd()))
	}
	c, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	var sent error
	err = c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 2*maxHandover) // without it, a short plan fits as well
		sent = unix.Sendmsg(int(fd), slices.Concat(head, text), unix.UnixRights(fds...), nil, 0)
	})
	if err := errors.Join(err, sent); err != nil {
		return fmt.Errorf("hand over mounts: %w", err)
	}
	return nil
}

// maxDescriptors is how many the kernel passes in one message (SCM_MAX_FD).
const maxDescriptors = 253

// receive reads a handover from a socket and nothing beyond it.
func receive(socket int) (h Handover, err error) {
	head, rights := make([]byte, 4), make([]byte, unix.CmsgSpace(maxDescriptors*4))
	n, m, _, _, err := unix.Recvmsg(socket, head, rights, unix.MSG_CMSG_CLOEXEC|unix.MSG_WAITALL)
	if err != nil {
		return h, err
	}
	if n != len(head) {
		return h, io.ErrUnexpectedEOF
	}
	size := binary.BigEndian.Uint32(head)
	if size > maxHandover {
		return h, fmt.Errorf("a message of %d bytes", size)
	}
	text := make([]byte, size)
	for read := 0; read < len(text); read += n {
		if n, err = unix.Read(socket, text[read:]); err != nil {
			return h, err
		}
		if n == 0 {
			return h, io.ErrUnexpectedEOF
		}
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return h, err
	}
	return h, h.take(rights[:m])
}

// take puts the descriptors that came with a handover where they belong.
func (h *Handover) take(rights []byte) error {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return err
	}
	var fds []int
	for i := range messages {
		more, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return err
		}
		fds = append(fds, more...)
	}
	next := func() *os.File {
		if len(fds) == 0 {
			return nil
		}
		f := os.NewFile(uintptr(fds[0]), "from imgmut")
		fds = fds[1:]
		return f
	}
	h.Stdin = next()
	for i := range h.Places {
		if p := &h.Places[i]; p.Bind == "" && p.Sealed == "" {
			p.Mount = next()
			if p.Mount == nil {
				return errors.New("fewer descriptors than mounts")
			}
		}
	}
	for i := range h.Lent {
		if h.Lent[i].Mount = next(); h.Lent[i].Mount == nil {
			return errors.New("fewer descriptors than mounts")
		}
	}
	if h.Stdin == nil || len(fds) > 0 {
		return errors.New("other descriptors than mounts")
	}
	return nil
}

// Become is the program of a guest's unit: it receives a [Handover] on its standard
// input, attaches the mounts to the directory dir in a mount namespace of its own, and
// executes argv, systemd-nspawn, which finds there what it is to run. dir is made. It
// returns only on error.
//
// A program of the unit's own, because nothing else can do this: systemd's
// properties for mounts want paths on the machine, and what ExecStartPre= mounts is
// in another namespace.
func Become(dir string, argv []string) error {
	// A mount namespace belongs to a thread, and execve keeps the calling one.
	runtime.LockOSThread()
	h, err := receive(0)
	if err != nil {
		return fmt.Errorf("receive mounts: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := separate(); err != nil {
		return err
	}
	beside := filepath.Join(filepath.Dir(dir), "beside")
	for _, d := range []string{dir, beside} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	places, _, err := besides(h.Places, beside)
	if err != nil {
		return err
	}
	if len(places) == 0 || places[0].Mount == nil || len(argv) == 0 {
		return errors.New("receive mounts: no root, or nothing to run")
	}
	place, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	if err := Attach(places[0].Mount, place); err != nil {
		return err
	}
	if err := attachAll(places[0].Mount, places[1:], h.Owner); err != nil {
		return err
	}
	if err := attachLent(LentDir(dir), h.Lent); err != nil {
		return err
	}
	// All other descriptors close as they are executed over.
	if err := unix.Dup2(int(h.Stdin.Fd()), 0); err != nil {
		return err
	}
	return fmt.Errorf("execute %s: %w", argv[0], unix.Exec(argv[0], argv, os.Environ()))
}

// LentDir is where what is lent to a guest is for systemd-nspawn, beside the directory of
// its tree.
func LentDir(dir string) string { return filepath.Join(filepath.Dir(dir), "lent") }

// attachLent attaches what is lent.
func attachLent(dir string, lent []Lent) error {
	for _, l := range lent {
		name := filepath.Join(dir, l.Name)
		if err := os.Mkdir(name, 0o755); err != nil {
			return fmt.Errorf("lend: %w", err)
		}
		if err := unix.MoveMount(int(l.Mount.Fd()), "", unix.AT_FDCWD, name, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("lend %s: %w", name, err)
		}
	}
	return nil
}
