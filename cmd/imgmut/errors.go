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
	"github.com/imgmut/imgmut/mutate/loop"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/tool"
	"github.com/imgmut/imgmut/mutate/verify"
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
		notOurs  *mutate.NotOursError
		taken    *mutate.TakenError
		unmount  *guest.NotMountedError
		refused  *machined.ExitError
	)
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, mutate.ErrUsage), errors.As(err, &notOurs), errors.As(err, &taken):
		return exitUsage
	case errors.As(err, &problems):
		return exitRecipe
	case errors.As(err, &missing), errors.As(err, &program), errors.As(err, &agent), errors.Is(err, store.ErrNoPool),
		errors.Is(err, store.ErrNoPlace), errors.Is(err, loop.ErrNone), errors.Is(err, guest.ErrLostWrites), errors.Is(err, mutate.ErrNoSpace), errors.Is(err, errNoHost), errors.Is(err, errHidden):
		return exitHost
	case errors.As(err, &step): // before ENOSPC: it is the image that is full, or its author's affair
		return exitStep
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return exitHost
	case errors.As(err, &failed):
		return exitVerify
	case errors.As(err, &invalid), errors.As(err, &unmount), errors.As(err, &refused) && !refused.Ready:
		return exitInvalid // or systemd-nspawn found it so
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
	case firstHint(err) != "":
		return firstHint(err)
	case errors.As(err, &step) && errors.Is(err, syscall.ENOSPC) && !errors.Is(err, mutate.ErrNoSpace) && !errors.Is(err, guest.ErrLostWrites):
		return "the image's own filesystem is full: use a larger base"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, guest.ErrLostWrites):
		return "make room with imgmut gc, or use a store on a larger disk with --store"
	case errors.As(err, &step): // what it was not allowed is the guest's affair
		return ""
	case errors.Is(err, loop.ErrNone):
		return "modprobe loop, or give the container /dev/loop-control and the loop devices (imgmut doctor)"
	case errors.Is(err, store.ErrNoPlace):
		return "choose another place with --store or $IMGMUT_STORE"
	case errors.Is(err, fs.ErrPermission):
		return "imgmut needs root, as systemd-nspawn --image does"
	}
	return ""
}

// firstHint asks each part of an error, outermost first.
func firstHint(err error) string {
	if h, ok := err.(interface{ Hint() string }); ok && h.Hint() != "" {
		return h.Hint()
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			return firstHint(inner)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if h := firstHint(inner); h != "" {
				return h
			}
		}
	}
	return ""
}

// failure is what is printed of an error with --json.
type failure struct {
	Error    string           `json:"error"`
	Hint     string           `json:"hint"`
	Status   int              `json:"status"` // exit status
	Problems recipes.Problems `json:"problems,omitempty"`
	Failed   []verify.Check   `json:"failed,omitempty"` // of a verdict
	Output   []string         `json:"output,omitempty"` // the last lines of a step that failed
}

// report prints an error and gives the exit status.
func (c *commands) report(err error) int {
	f := failure{Status: exitStatus(err)}
	if err == nil {
		return f.Status
	}
	f.Error, f.Hint = oneLine(err), hint(err)
	var step *mutate.StepError
	if errors.As(err, &step) {
		f.Output = step.Tail
	}
	errors.As(err, &f.Problems)
	var failed *mutate.VerifyError
	if errors.As(err, &failed) {
		f.Failed = failed.Failed
	}
	if c.json {
		b, _ := json.Marshal(f)
		fmt.Fprintf(c.stderr, "%s\n", b)
		return f.Status
	}
	if step != nil && (c.progress == nil || !c.progress.showsOutput()) {
		for _, line := range f.Output {
			fmt.Fprintf(c.stderr, "%s | %s\n", step.Name, line)
		}
	}
	for _, m := range messages(err, f) {
		fmt.Fprintln(c.stderr, "imgmut:", m.text)
		if m.hint != "" {
			fmt.Fprintln(c.stderr, "hint:", m.hint)
		}
	}
	return f.Status
}

// message is one line of an error, and one of its mend.
type message struct{ text, hint string }

// messages are the lines of an error: one, unless it is several findings.
func messages(err error, f failure) []message {
	var all []message
	for _, p := range f.Problems {
		all = append(all, message{plainText(p.Error()), p.Hint})
	}
	var failed *mutate.VerifyError
	if errors.As(err, &failed) {
		for line := range strings.Lines(failed.Error()) {
			all = append(all, message{text: plainText(strings.TrimSpace(line))})
		}
	}
	if len(all) == 0 {
		all = append(all, message{f.Error, f.Hint})
	}
	return all
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
