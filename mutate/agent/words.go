package agent

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// accountForm is the name of a user or group as Debian lets it be, and with
// that Red Hat (shadow's chkname with Debian's relaxed rule): anything that is
// no separator in /etc/passwd or on a command line and does not begin like an
// option or an entry of NIS.
var accountForm = lazyregexp.New(`^[^-+~:,/\s\pC][^:,/\s\pC]*$`)

// maxAccount is the length of the longest name, in bytes (useradd(8)).
const maxAccount = 32

// noID is the number that to chown(2) means no change.
const noID = 1<<32 - 1

// CheckOwner says what is wrong with the form of an owner. Whether the image
// has such a user, only the image knows.
func CheckOwner(s string) error {
	for _, name := range strings.SplitN(s, ":", 2) {
		if id, err := strconv.ParseUint(name, 10, 64); err == nil && id < noID {
			continue
		} else if err == nil || !accountForm().MatchString(name) || len(name) > maxAccount {
			return fmt.Errorf("%q: want USER or USER:GROUP, by name or number", s)
		}
	}
	return nil
}

// ParseMode reads octal permissions; special bits are allowed, as in chmod(1).
func ParseMode(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 8, 12)
	if err != nil {
		return 0, fmt.Errorf(`%q: want octal permissions such as "0644"`, s)
	}
	return uint32(n), nil
}

// unitForm is a full unit name (systemd.unit(5)); the ending says what is meant.
var unitForm = lazyregexp.New(
	`^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*\.(service|socket|target|timer|mount|automount|path|slice|swap|device|scope)$`)

// CheckUnit says what is wrong with the name of a unit.
func CheckUnit(name string) error {
	if !unitForm().MatchString(name) {
		return fmt.Errorf("%q: want a full unit name such as nginx.service", name)
	}
	return nil
}

// Systemctl is the image's own, told that there is no manager to talk to
// (systemd's ENVIRONMENT.md, SYSTEMD_OFFLINE).
func Systemctl(args ...string) Command {
	return Command{Argv: append([]string{"systemctl"}, args...), Env: map[string]string{"SYSTEMD_OFFLINE": "1"}}
}
