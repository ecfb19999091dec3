package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxRead is the largest file that a Read gives, in bytes.
const maxRead = 64 << 20

// launcherSocket is the agent's descriptor of the launcher.
const launcherSocket = 3

// Serve answers requests until the input ends. It must be a child of the
// launcher, in a guest: it writes wherever it is told to.
func Serve(in io.Reader, out io.Writer) error {
	if os.Getppid() != 2 {
		return errors.New("serve agent: this runs inside a guest only, started by imgmut")
	}
	unix.Umask(0o022)
	// Nobody may look into the agent. Steps do not even see it.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	unix.CloseOnExec(launcherSocket)
	ctx, gone := context.WithCancel(context.Background())
	defer gone()
	s := &server{out: out, frames: make(chan frame), launcher: os.NewFile(launcherSocket, "launcher")}
	go s.receive(bufio.NewReaderSize(in, MaxData), gone)
	if err := WriteFrame(out, Hello, nil); err != nil {
		return err
	}
	for {
		f, ok := <-s.frames
		if !ok {
			return s.broken
		}
		if err := s.answer(ctx, f); err != nil {
			return err
		}
	}
}

type frame struct {
	kind    byte
	payload []byte
}

type server struct {
	out      io.Writer
	frames   chan frame // closed when the host is gone
	broken   error      // why, if not by closing; set before the close
	launcher *os.File
}

// receive passes frames on and notices the end of the host even while a
// command runs.
func (s *server) receive(in io.Reader, gone context.CancelFunc) {
	defer close(s.frames)
	defer gone()
	for {
		kind, payload, err := ReadFrame(in)
		if err != nil {
			if err != io.EOF {
				s.broken = err
			}
			return
		}
		s.frames <- frame{kind, payload}
	}
}

// answer serves one request. The error it returns is about the connection;
// what went wrong with the request goes to the host.
func (s *server) answer(ctx context.Context, f frame) error {
	var call Call
	if f.kind != Request {
		return fmt.Errorf("frame %q where a request should be: %w", f.kind, ErrProtocol)
	}
	if err := json.Unmarshal(f.payload, &call); err != nil {
		return fmt.Errorf("read request: %w", errors.Join(err, ErrProtocol))
	}
	var reply Reply
	var err error
	switch {
	case call.Run != nil:
		reply.Exit, err = s.run(ctx, call.Run)
	case call.Put:
		data := &dataReader{frames: s.frames}
		err = unpack(data)
		err = errors.Join(err, data.drain())
	case call.Read != "":
		err = s.read(call.Read)
	case call.Stat != "":
		reply.Stat, err = stat(call.Stat)
	default:
		err = ErrProtocol
	}
	if err != nil {
		reply.Error = err.Error()
		errors.As(err, &reply.Errno)
	}
	return WriteJSON(s.out, Result, reply)
}

// dataReader is the data that follows a request.
type dataReader struct {
	frames <-chan frame
	rest   []byte
	ended  bool
}

func (d *dataReader) Read(p []byte) (int, error) {
	for len(d.rest) == 0 {
		if d.ended {
			return 0, io.EOF
		}
		f, ok := <-d.frames
		switch {
		case !ok:
			return 0, io.ErrUnexpectedEOF
		case f.kind == End:
			d.ended = true
		case f.kind == Data:
			d.rest = f.payload
		default:
			return 0, fmt.Errorf("frame %q where data should be: %w", f.kind, ErrProtocol)
		}
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// drain reads what is left, so that the next frame is a request again.
func (d *dataReader) drain() error {
	_, err := io.Copy(io.Discard, d)
	return err
}

// read sends the bytes of a file.
func (s *server) read(name string) error {
	f, err := openRegular(name, maxRead)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, MaxData)
	for {
		n, err := f.Read(buf)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := WriteFrame(s.out, Data, buf[:n]); err != nil {
			return err
		}
	}
}

func stat(name string) (*Stat, error) {
	fi, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	st := fi.Sys().(*syscall.Stat_t)
	s := &Stat{Mode: st.Mode & 0o7777, Type: fi.Mode().Type(), Size: fi.Size(), UID: int(st.Uid), GID: int(st.Gid)}
	u, _ := findUser(func(a account) bool { return a.id == s.UID })
	g, _ := findGroup(func(a account) bool { return a.id == s.GID })
	s.User, s.Group = u.name, g.name
	if s.Type == fs.ModeSymlink {
		s.Link, err = os.Readlink(name)
	}
	return s, err
}
