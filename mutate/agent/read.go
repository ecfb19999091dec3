package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// bounded is a file that gives an error in place of what is beyond its limit.
type bounded struct {
	file        *os.File
	limit, left int64
}

// openRegular opens a file of the image for reading if it is a regular one of
// at most limit bytes: a pipe could keep us waiting, and a device has no end.
// Nor have some files of the kernel's own, to which a link may lead. Those say
// that they are regular and empty, so what is read counts, not the size.
func openRegular(name string, limit int64) (*bounded, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	b := &bounded{f, limit, limit}
	if err := b.check(); err != nil {
		f.Close()
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

func (b *bounded) check() error {
	fi, err := b.file.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if fi.Size() > b.limit {
		return b.tooLarge()
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(b.file.Fd()), &fs); err != nil {
		return err
	}
	if fs.Type == unix.PROC_SUPER_MAGIC || fs.Type == unix.SYSFS_MAGIC {
		return errors.New("a file of the kernel, and not of the image")
	}
	return nil
}

func (b *bounded) tooLarge() error {
	return fmt.Errorf("more than the %d bytes that are read at once", b.limit)
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.file.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("read %s: %w", b.file.Name(), b.tooLarge())
	}
	return n, err
}

func (b *bounded) Close() error { return b.file.Close() }

// readRegular reads a regular file of at most limit bytes.
func readRegular(name string, limit int64) ([]byte, error) {
	f, err := openRegular(name, limit)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// maxAccounts bounds /etc/passwd and /etc/group, in bytes.
const maxAccounts = 16 << 20

// account is a line of /etc/passwd or /etc/group (passwd(5), group(5)).
type account struct {
	name    string
	id      int
	primary int // group of a user
}

// findAccount finds the first account that matches in one of the two files. It
// reads them itself because os/user would open whatever is there.
func findAccount(file string, match func(account) bool) (account, bool) {
	b, err := readRegular(file, maxAccounts)
	if err != nil {
		return account{}, false
	}
	for line := range bytes.Lines(b) {
		fields := strings.Split(strings.TrimSpace(string(line)), ":")
		if len(fields) < 4 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		a := account{name: fields[0]}
		if a.id, err = strconv.Atoi(fields[2]); err != nil {
			continue
		}
		a.primary, _ = strconv.Atoi(fields[3]) // of a group it is its first member, if that
		if match(a) {
			return a, true
		}
	}
	return account{}, false
}

func findUser(match func(account) bool) (account, bool)  { return findAccount("/etc/passwd", match) }
func findGroup(match func(account) bool) (account, bool) { return findAccount("/etc/group", match) }
