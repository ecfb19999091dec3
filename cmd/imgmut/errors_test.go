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
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/tool"
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
		{"wrong use", fault.New(fault.Usage, "", "x"), exitUsage, ""},
		{"recipe", recipes.Problems{{Message: "x"}}, exitRecipe, ""},
		{"host", &machined.MissingError{Checks: []machined.Check{{Err: errors.New("x"), Mend: "install y"}}}, exitHost,
			"install y"},
		{"program", missingProgram(t), exitHost, "install the package btrfs-progs"},
		{"no rights", &fs.PathError{Op: "mkdir", Path: "/x", Err: syscall.EACCES}, exitHost, "root"},
		{"full store", mutate.ErrNoSpace, exitHost, "imgmut gc"},
		{"full store in a step", inStep(fmt.Errorf("%w: %w", guest.ErrLostWrites, &agent.ExitError{})), exitHost,
			"imgmut gc"},
		{"full image", &mutate.StepError{Err: &agent.GuestError{Text: "no space left on device", Errno: syscall.ENOSPC},
			Full: "give it room"}, exitStep, "give it room"},
		{"step", inStep(&agent.ExitError{Command: "sh", Reason: "exit status 1"}), exitStep, ""},
		{"a step may not", inStep(&agent.GuestError{Text: "no", Errno: syscall.EPERM}), exitStep, ""},
		{"a step finds nothing", inStep(&agent.GuestError{Text: "no", Errno: syscall.ENOENT}), exitStep, ""},
		{"interrupted step", inStep(errInterrupted), exitInterrupted, ""},
		{"cancelled", context.Canceled, exitInterrupted, ""},
		{"verdict", &mutate.VerifyError{Failed: []record.Check{{}}}, exitVerify, ""},
		{"invalid base", fmt.Errorf("import: %w", fault.New(fault.Image, "do m", "f")), exitInvalid, "do m"},
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

// missingProgram is what a run of a program says that is not installed.
func missingProgram(t *testing.T) error {
	t.Setenv("PATH", t.TempDir())
	_, err := tool.Run(context.Background(), tool.Call{Program: "btrfs", What: "check x"})
	return err
}

// TestOneLine: an error is one line, and nothing a terminal would obey.
func TestOneLine(t *testing.T) {
	err := errors.Join(errors.New("a\x1b[2Jb"), errors.New("c\u009b\u202ed"))
	if got := oneLine(err); got != "a[2Jb; cd" {
		t.Errorf("oneLine = %q", got)
	}
}
