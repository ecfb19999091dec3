package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/imgmut/imgmut/machined"
	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/tool"
	"github.com/imgmut/imgmut/mutate/verify"
	"github.com/imgmut/imgmut/recipes"
)

// TestExitStatus: what an error is called, also where several causes meet.
func TestExitStatus(t *testing.T) {
	inStep := func(err error) error { return &mutate.StepError{Index: 1, Name: "x", Err: err} }
	for _, tc := range []struct {
		name string
		err  error
		want int
		hint string // what it must mention
	}{
		{"nothing", nil, exitDone, ""},
		{"anything", errors.New("x"), exitUnexpected, ""},
		{"wrong use", fmt.Errorf("x: %w", mutate.ErrUsage), exitUsage, ""},
		{"recipe", recipes.Problems{{Message: "x"}}, exitRecipe, ""},
		{"host", &machined.MissingError{Checks: []machined.Check{{Err: errors.New("x"), Mend: "install y"}}}, exitHost, "install y"},
		{"program", &tool.MissingError{Program: "p", Why: "f", Package: "q"}, exitHost, "install the package q"},
		{"agent", &guest.AgentError{Path: "p"}, exitHost, "CGO_ENABLED=0"},
		{"no rights", &fs.PathError{Op: "mkdir", Path: "/x", Err: syscall.EACCES}, exitHost, "root"},
		{"hidden store", fmt.Errorf("/run/x %w", errHidden), exitHost, ""},
		{"full store", mutate.ErrNoSpace, exitHost, "imgmut gc"},
		{"full store in a step", inStep(fmt.Errorf("%w: %w", guest.ErrLostWrites, &agent.ExitError{})), exitHost, "imgmut gc"},
		{"full image", inStep(&agent.GuestError{Text: "no space left on device", Errno: syscall.ENOSPC}), exitStep, "larger base"},
		{"step", inStep(&agent.ExitError{Command: "sh", Reason: "exit status 1"}), exitStep, ""},
		{"a step may not", inStep(&agent.GuestError{Text: "no", Errno: syscall.EPERM}), exitStep, ""},
		{"a step finds nothing", inStep(&agent.GuestError{Text: "no", Errno: syscall.ENOENT}), exitStep, ""},
		{"interrupted step", inStep(errInterrupted), exitInterrupted, ""},
		{"cancelled", context.Canceled, exitInterrupted, ""},
		{"verdict", &mutate.VerifyError{Failed: []verify.Check{{}}}, exitVerify, ""},
		{"invalid base", fmt.Errorf("import: %w", &disk.InvalidError{Fault: "f", Mend: "do m"}), exitInvalid, "do m"},
		{"no such image", fmt.Errorf("x: %w", store.ErrNotFound), exitNotFound, ""},
		{"no such file", fs.ErrNotExist, exitNotFound, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := exitStatus(tc.err); got != tc.want {
				t.Errorf("exit status %d, want %d", got, tc.want)
			}
			if got := hint(tc.err); tc.err != nil && (!strings.Contains(got, tc.hint) || tc.hint == "" && got != "") {
				t.Errorf("hint %q, want %q", got, tc.hint)
			}
		})
	}
}

// TestOneLine: an error is one line, and nothing a terminal would obey.
func TestOneLine(t *testing.T) {
	err := errors.Join(errors.New("a\x1b[2Jb"), errors.New("c\u009bd"))
	if got := oneLine(err); got != "a[2Jb; cd" {
		t.Errorf("oneLine = %q", got)
	}
}
