package machined

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// journalPath is where programs expect the journal's native socket.
// dbus-broker-launch does not start without one.
const journalPath = "/run/systemd/journal/socket"

// journalFD is the descriptor under which process 1 finds the socket.
const journalFD = 3

// newJournal makes the socket. It is bound inside, by bindJournal, to a path
// that only exists there, and read outside, by readJournal.
func newJournal() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a journal socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "journal"), nil
}

// bindJournal gives the inherited socket its path in the private host.
func bindJournal() error {
	if err := os.MkdirAll(filepath.Dir(journalPath), 0o755); err != nil {
		return err
	}
	if err := unix.Bind(journalFD, &unix.SockaddrUnix{Name: journalPath}); err != nil {
		return fmt.Errorf("bind %s: %w", journalPath, err)
	}
	// Everyone's, as journald's is (systemd-journald.socket): dbus-broker 36
	// opens it as its own user.
	if err := os.Chmod(journalPath, 0o666); err != nil {
		return err
	}
	unix.CloseOnExec(journalFD)
	return nil
}

// readJournal writes each message that arrives at socket to log, so that no
// sender ever waits, until socket is closed.
func readJournal(socket io.Reader, log io.Writer) {
	datagram := make([]byte, 64<<10)
	for {
		n, err := socket.Read(datagram)
		if err != nil {
			return
		}
		// Journal Native Protocol: KEY=VALUE lines, but for values with line
		// feeds, which are not worth the parsing here.
		for line := range strings.Lines(string(datagram[:n])) {
			if message, ok := strings.CutPrefix(line, "MESSAGE="); ok {
				_, _ = fmt.Fprint(log, message) // to a terminal that we hold open
			}
		}
	}
}

// pollable returns a second descriptor for f that is read without blocking a
// thread, so that closing it ends a read.
func pollable(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
