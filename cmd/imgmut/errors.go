package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"unicode"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
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

// statuses are the exit statuses of errors, by whose fault they are.
var statuses = map[fault.Class]int{
	fault.Interrupted: exitInterrupted,
	fault.Usage:       exitUsage,
	fault.Recipe:      exitRecipe,
	fault.Host:        exitHost,
	fault.Step:        exitStep,
	fault.Verdict:     exitVerify,
	fault.Image:       exitInvalid,
	fault.NotFound:    exitNotFound,
}

// exitStatus is the exit status for an error.
func exitStatus(err error) int {
	if err == nil {
		return exitDone
	}
	if status, ok := statuses[fault.Of(err)]; ok {
		return status
	}
	return exitUnexpected
}

// hint finds the mend that some part of the error knows, or one for what only
// the kernel has said.
func hint(err error) string {
	var step *mutate.StepError
	switch mend := fault.Mend(err); {
	case mend != "":
		return mend
	case errors.As(err, &step): // what it was not allowed is the guest's affair
		return ""
	case errors.Is(err, syscall.ENOSPC):
		return "make room with imgmut gc, or use a store on a larger disk with --store"
	case errors.Is(err, fs.ErrPermission):
		return "imgmut needs root, as systemd-nspawn does"
	}
	return ""
}

// failure is what is printed of an error with --json.
type failure struct {
	Error    string           `json:"error"`
	Hint     string           `json:"hint"`
	Status   int              `json:"status"` // exit status
	Problems recipes.Problems `json:"problems,omitempty"`
	Failed   []record.Check   `json:"failed,omitempty"` // of a verdict
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
