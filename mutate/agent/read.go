package agent

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// openRegular opens a file of the image for reading if it is a regular one: a
// pipe could keep us waiting, and a device has no end.
func openRegular(name string) (*os.File, int64, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("read %s: not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

// readRegular reads a regular file of at most limit bytes.
func readRegular(name string, limit int64) ([]byte, error) {
	f, size, err := openRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("read %s: %d bytes, more than the %d that are read at once", name, size, limit)
	}
	return io.ReadAll(io.LimitReader(f, limit))
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
