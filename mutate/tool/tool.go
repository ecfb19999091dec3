// Package tool is about the programs of the host that imgmut runs: blkid,
// mkfs.xfs, the checkers of filesystems, mcopy. Each is the one that a
// filesystem's own authors keep, and each may be missing.
package tool

import (
	"errors"
	"fmt"
	"os/exec"
)

// MissingError says that a program is not installed.
type MissingError struct {
	Program string
	Why     string // what it is wanted for, as "check partition 2 (xfs)"
	Package string // Debian's, which other distributions mostly follow
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s: %s is not installed", e.Why, e.Program)
}

// Hint is how to get it.
func (e *MissingError) Hint() string { return "install the package " + e.Package }

// Missing turns the error of a command whose program is not there into a
// [*MissingError], and leaves all others.
func Missing(err error, program, why, pkg string) error {
	if errors.Is(err, exec.ErrNotFound) {
		return &MissingError{program, why, pkg}
	}
	return err
}
