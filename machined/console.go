package machined

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// consoleLines is how much of a private host's log is kept for errors.
const consoleLines = 20

// console is the terminal that a private host has for /dev/console. PID 1 logs
// only to terminals, the journal or the kernel; the latter two would be the
// machine's. It is read all the time, or PID 1 would block on it.
type console struct {
	master *os.File
	slave  *os.File // held open: without any holder the master reads as ended
	done   chan struct{}
	last   []string // the last lines, not to be read before done
}

// openConsole makes a terminal and copies what is written to it to log, which
// may be nil.
func openConsole(log io.Writer) (*console, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c := &console{master: master, done: make(chan struct{})}
	if c.slave, err = openSlave(master); err != nil {
		_ = master.Close()
		return nil, fmt.Errorf("make a console: %w", err)
	}
	go c.read(log)
	return c, nil
}

// openSlave opens the other end of a terminal without looking for its path,
// which may be in another mount of devpts.
func openSlave(master *os.File) (*os.File, error) {
	raw, err := master.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd uintptr
	var call error
	err = raw.Control(func(m uintptr) {
		if call = unix.IoctlSetPointerInt(int(m), unix.TIOCSPTLCK, 0); call != nil {
			return
		}
		var errno unix.Errno
		fd, _, errno = unix.Syscall(unix.SYS_IOCTL, m, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			call = errno
		}
	})
	if err != nil {
		return nil, err
	}
	if call != nil {
		return nil, call
	}
	return os.NewFile(fd, "console"), nil
}

// read drains the terminal until it is closed or no process has it open.
func (c *console) read(log io.Writer) {
	defer close(c.done)
	lines := bufio.NewScanner(c.master)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if log != nil {
			_, _ = fmt.Fprintln(log, line) // a log that cannot be written is no reason to stop
		}
		c.last = append(c.last, line)
		if extra := len(c.last) - consoleLines; extra > 0 {
			c.last = c.last[extra:]
		}
	}
	_, _ = io.Copy(io.Discard, c.master) // a line too long for the scanner must not block its writer
}

// drain reads what is left once every process of the host is gone, and ends
// the reading. After it the log is not written any more. Twice is harmless.
func (c *console) drain() {
	_ = c.slave.Close()
	<-c.done
	_ = c.master.Close()
}
