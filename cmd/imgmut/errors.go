package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"unicode"

	"github.com/imgmut/imgmut/machined"
	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/tool"
	"github.com/imgmut/imgmut/recipes"
)

// Exit statuses. They are documented in the help and the README, and the same
// for every command.
const (
	exitDone        = 0
	exitUnexpected  = 1
	exitUsage       = 2
	exitRecipe      = 3
	exitHost        = 4
	exitStep        = 5
	exitVerify      = 6
	exitInvalid     = 7
	exitNotFound    = 8
	exitInterrupted = 130
)

// exitStatus tells what kind of error it is. The order matters: a step that
// was interrupted was interrupted, and one that ran the store full did not
// fail by itself.
func exitStatus(err error) int {
	var (
		problems recipes.Problems
		step     *mutate.StepError
		failed   *mutate.VerifyError
		invalid  *disk.InvalidError
		missing  *machined.MissingError
		program  *tool.MissingError
		agent    *guest.AgentError
	)
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, mutate.ErrUsage):
		return exitUsage
	case errors.As(err, &problems):
		return exitRecipe
	case errors.As(err, &missing), errors.As(err, &program), errors.As(err, &agent), errors.Is(err, store.ErrNoPool),
		errors.Is(err, guest.ErrLostWrites), errors.Is(err, mutate.ErrNoSpace), errors.Is(err, errNoHost), errors.Is(err, errHidden):
		return exitHost
	case errors.As(err, &step): // before ENOSPC: it is the image that is full, or its author's affair
		return exitStep
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, fs.ErrPermission):
		return exitHost
	case errors.As(err, &failed):
		return exitVerify
	case errors.As(err, &invalid):
		return exitInvalid
	case errors.Is(err, store.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return exitNotFound
	}
	return exitUnexpected
}

// hinted is an error with something the user can do about it.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// Hint is what the user can do.
func (h *hinted) Hint() string { return h.hint }

func withHint(err error, hint string) error { return &hinted{err, hint} }

// hint finds the mend that some part of the error knows.
func hint(err error) string {
	var h interface{ Hint() string }
	var missing *machined.MissingError
	var step *mutate.StepError
	switch {
	case errors.As(err, &missing):
		var mends []string
		for _, c := range missing.Checks {
			if c.Mend != "" {
				mends = append(mends, c.Mend)
			}
		}
		return strings.Join(mends, "; ")
	case errors.As(err, &h) && h.Hint() != "":
		return h.Hint()
	case errors.As(err, &step) && errors.Is(err, syscall.ENOSPC) && !errors.Is(err, mutate.ErrNoSpace) && !errors.Is(err, guest.ErrLostWrites):
		return "the image's own filesystem is full: use a larger base"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, guest.ErrLostWrites):
		return "make room with imgmut gc, or use a store on a larger disk with --store"
	case errors.As(err, &step): // what it was not allowed is the guest's affair
		return ""
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return "imgmut needs root, as systemd-nspawn --image does"
	}
	return ""
}

// report prints an error and gives the exit status.
func (c *commands) report(err error) int {
	status := exitStatus(err)
	if err == nil {
		return status
	}
	if c.json {
		b, _ := json.Marshal(map[string]any{"error": oneLine(err), "hint": hint(err), "status": status})
		fmt.Fprintf(c.stderr, "%s\n", b)
		return status
	}
	var problems recipes.Problems
	if errors.As(err, &problems) {
		for _, p := range problems {
			fmt.Fprintln(c.stderr, "imgmut:", p.Error())
			if p.Hint != "" {
				fmt.Fprintln(c.stderr, "hint:", p.Hint)
			}
		}
		return status
	}
	var step *mutate.StepError
	if errors.As(err, &step) && !c.progress.showsOutput() {
		for _, line := range step.Tail {
			fmt.Fprintf(c.stderr, "%s | %s\n", step.Name, line)
		}
	}
	fmt.Fprintln(c.stderr, "imgmut:", oneLine(err))
	if h := hint(err); h != "" {
		fmt.Fprintln(c.stderr, "hint:", h)
	}
	return status
}

// oneLine keeps an error on its line: joined errors have one each.
func oneLine(err error) string {
	return plainText(strings.Join(strings.Split(strings.TrimSpace(err.Error()), "\n"), "; "))
}

// plainText takes out what a terminal would obey: much of what is printed comes
// from images.
func plainText(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, s)
}
