// Package agent is imgmut's process inside the guest, and the protocol by
// which it is spoken to.
//
// The agent is the imgmut binary itself, static, bind-mounted into the guest
// and started by systemd-nspawn as PID 2. It needs nothing of the image: no
// shell, no bus, no library. File operations happen here, so the image's
// symbolic links can lead nowhere but inside the image.
//
// # Protocol
//
// Over its standard input and output go frames: a byte that says what it is,
// four bytes big-endian with the length of the payload, the payload, at most
// [MaxFrame] bytes. The agent begins with [Hello]. Then the host sends one
// request at a time, followed by its data where the request says so, and the
// agent answers with any number of output or data frames and one result. An
// end of input means that the host is gone: the agent kills what runs and
// exits, so a dead imgmut leaves no guest behind.
//
// Exit statuses prove nothing here (systemd-nspawn gives 0 for a guest that
// powered itself off): a request is done when its result has arrived.
//
// # What a step is in
//
// Three processes of the binary run in a guest, each with less than the one
// before. The launcher ([Launch]) is process 2. It alone may be in the machine's
// network, if any step of the run may: then a process that is not cannot get
// there again. It starts the agent ([Serve]) in a network namespace of its own,
// and for each command an [Init] with the command below it.
//
// A command is root, its author may be anybody, and it has the source of this.
// What keeps it from the agent, the launcher and the next command:
//
//   - It is in a user namespace of its own, with the ids of the guest. All other
//     namespaces of it belong to that one, so it has no capability over a process,
//     mount or namespace of the guest: with a handle on one, could it get it, it
//     could do nothing.
//   - Its process ids are its own, and its mount namespace has no proc of others,
//     not even a covered one. Whatever else is mounted before it starts is locked:
//     no mount can be taken away to show what is below. No cgroups are mounted,
//     and it can mount none, because the guest allows no new cgroup namespaces.
//   - It inherits its output, an input that has ended, and no other descriptor, key
//     or shared memory. The kernel bounds its processes, and ends it before the
//     agent where memory is short.
//
// Each command has a /run, /tmp and /dev/shm of its own, and a network namespace
// with nothing but loopback unless the step may use the network. All that ends
// with the command, and what it left running with it, so that a step sees the
// same whether the one before it ran just now or came from a layer.
//
// A command that works on how the image starts is lent more ([Lend]): a /dev with a clone
// of the image's disk, and directories in place of volumes that the kernel cannot mount.
// The launcher shows it in that command's mounts alone; in those of others /run is over it.
//
// What remains: a command with the network is in the machine's network namespace,
// and so reaches what listens on the machine's loopback and abstract sockets. It
// can hand descriptors over to a process there that helps it: with one of a
// directory that process changes the image also during later steps. All
// is one kernel, and one filter of system calls, that of systemd-nspawn. And a
// proc that a command mounts by itself shows the machine's kernel command line.
package agent

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"time"
)

// Path is where the agent's binary is bind-mounted in the guest.
const Path = "/run/imgmut/agent"

// workDir is where a command finds what it was given, in its own /run.
const workDir = "/run/imgmut"

// MaxFrame is the largest payload of a frame, in bytes: a request with a script
// as large as a recipe can hold, of whose characters JSON makes six each.
const MaxFrame = 8 << 20

// MaxData is how many bytes of a file go into one frame.
const MaxData = 256 << 10

// Kinds of frames.
const (
	Hello   = 'H' // agent: ready; no payload
	Request = 'Q' // host: JSON of [Call]
	Data    = 'D' // either: bytes of a file or a tar stream
	End     = 'E' // host: the data is complete
	Output  = 'O' // agent: what a command printed
	Result  = 'R' // agent: JSON of [Reply]
)

// Call is a request: the one field that is set says what is asked for.
type Call struct {
	Run  *RunCall `json:",omitempty"`
	Put  bool     `json:",omitempty"` // a tar stream follows
	Read string   `json:",omitempty"` // path of a file, whose bytes come as data
	Stat string   `json:",omitempty"` // path, not followed if it is a link
}

// RunCall asks to run a program.
type RunCall struct {
	Argv    []string
	Script  string
	Env     []string // KEY=value
	Dir     string
	Timeout time.Duration
	Network bool
	// Cmdline is what the command sees as the kernel's command line.
	Cmdline string
	// Resolv is the text of the host's resolv.conf, shown to a command that
	// has the network.
	Resolv string
	Covers []Cover
	Lend   Lend
}

// Lend is what a command sees of what is lent to the guest ([LentDir]).
type Lend struct {
	Dev    bool              `json:",omitempty"` // the /dev there, with the image's disk in it
	Places map[string]string `json:",omitempty"` // directories there, by name, and on which directory of the image each is
}

// LentDir is where systemd-nspawn puts what is lent to the guest. A command has a /run of
// its own over it, and cannot go there.
const LentDir = "/run/imgmut-lent"

// Reply ends a request.
type Reply struct {
	Error string        `json:",omitempty"` // empty if it was done
	Errno syscall.Errno `json:",omitempty"` // what the error wraps, if the kernel gave it
	Exit  *ExitStatus   `json:",omitempty"` // of a program that ran
	Stat  *Stat         `json:",omitempty"`
}

// ExitStatus is how a program ended.
type ExitStatus struct {
	Code     int    // -1 if a signal ended it
	Signal   string `json:",omitempty"` // SIGKILL
	TimedOut bool   `json:",omitempty"`
}

// Stat describes a file of the guest.
type Stat struct {
	Mode        uint32 // permission and special bits, as chmod(1) takes them
	Type        fs.FileMode
	Size        int64
	UID, GID    int    // -1 if the volume keeps no owners
	User, Group string // empty if the image has no name for it
	Link        string // target of a symbolic link
}

// ErrProtocol says that what arrived is not the protocol.
var ErrProtocol = errors.New("the other side does not speak the agent's protocol")

// WriteFrame writes one frame in one write.
func WriteFrame(w io.Writer, kind byte, payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("write frame: %d bytes: %w", len(payload), ErrProtocol)
	}
	b := append(make([]byte, 0, 5+len(payload)), kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	_, err := w.Write(append(b, payload...))
	return err
}

// WriteJSON writes one frame with v as its payload.
func WriteJSON(w io.Writer, kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return WriteFrame(w, kind, b)
}

// ReadFrame reads one frame. It is [io.EOF] if the other side closed between
// frames, and wraps [ErrProtocol] if what came is none.
func ReadFrame(r io.Reader) (kind byte, payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err == io.EOF {
		return 0, nil, io.EOF
	} else if err == io.ErrUnexpectedEOF {
		return 0, nil, fmt.Errorf("read frame: %w", errors.Join(err, ErrProtocol))
	} else if err != nil {
		return 0, nil, fmt.Errorf("read frame: %w", err)
	}
	switch head[0] {
	case Hello, Request, Data, End, Output, Result:
	default:
		return 0, nil, fmt.Errorf("read frame: kind %q: %w", head[0], ErrProtocol)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("read frame: %d bytes: %w", n, ErrProtocol)
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, fmt.Errorf("read frame: %w", errors.Join(err, ErrProtocol))
	}
	return head[0], payload, nil
}
