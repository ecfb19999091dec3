package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/printable"
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

// status is an exit status and what it means.
type status struct {
	code       int
	class      fault.Class // of the errors that end with it
	meaning    string
	everywhere bool // every command can end with it
}

// statuses are all exit statuses, in order.
var statuses = []status{
	{exitDone, "", "done", true},
	{exitUnexpected, "", "unexpected", true},
	{exitUsage, fault.Usage, "wrong use", true},
	{exitRecipe, fault.Recipe, "recipe invalid: every problem, each with its place", false},
	{exitHost, fault.Host, "the host lacks something (imgmut doctor tells what, and the mend)", false},
	{exitStep, fault.Step, "a step failed", false},
	{exitVerify, fault.Verdict, "the image is not what it should be", false},
	{exitInvalid, fault.Image, "a base or image is invalid: damaged, empty, truncated, no usable root", false},
	{exitNotFound, fault.NotFound, "not found: a recipe, a base, a name", false},
	{exitInterrupted, fault.Interrupted, "interrupted", true},
}

// exitStatus is the exit status for an error.
func exitStatus(err error) int {
	if err == nil {
		return exitDone
	}
	class := fault.Of(err)
	for _, s := range statuses {
		if class != "" && s.class == class {
			return s.code
		}
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
		return "run as root: imgmut needs it, as systemd-nspawn does"
	}
	return ""
}

// failure is what is printed of an error with --json.
type failure struct {
	Error    string           `json:"error"`
	Hint     string           `json:"hint,omitempty"`
	Status   int              `json:"status"` // exit status
	Problems recipes.Problems `json:"problems,omitempty"`
	Failed   []record.Check   `json:"failed,omitempty"` // of a verdict
	Output   []string         `json:"output,omitempty"` // the last lines of a step that failed
	// NotApplied are the images of the recipes that follow the one that failed.
	NotApplied []string `json:"notApplied,omitempty"`
}

// unapplied is an error of one of several recipes, and what is not made for that.
type unapplied struct {
	error
	names []string // of the images of those after it
}

func (u *unapplied) Unwrap() error { return u.error }

// report prints an error and gives the exit status.
func (s *session) report(err error) int {
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
	var left *unapplied
	if errors.As(err, &left) {
		f.NotApplied = left.names
	}
	var failed *mutate.VerifyError
	if errors.As(err, &failed) {
		f.Failed = failed.Failed
	}
	if s.json {
		b, _ := json.Marshal(f)
		fmt.Fprintf(s.stderr, "%s\n", b)
		return f.Status
	}
	if step != nil && (s.progress == nil || !s.progress.showsOutput()) {
		for _, line := range f.Output {
			fmt.Fprintf(s.stderr, "%s | %s\n", step.Name, line)
		}
	}
	for _, m := range messages(err, f) {
		fmt.Fprintln(s.stderr, "imgmut:", m.text)
		if m.hint != "" {
			fmt.Fprintln(s.stderr, "hint:", printable.Text(m.hint))
		}
	}
	if len(f.NotApplied) > 0 {
		fmt.Fprintln(s.stderr, "imgmut: not applied:", strings.Join(f.NotApplied, ", "))
	}
	return f.Status
}

// message is one line of an error, and one of its mend.
type message struct{ text, hint string }

// messages are the lines of an error: one, unless it is several findings.
func messages(err error, f failure) []message {
	var all []message
	for _, p := range f.Problems {
		all = append(all, message{printable.Text(p.Error()), p.Hint})
	}
	var failed *mutate.VerifyError
	if errors.As(err, &failed) {
		for _, c := range failed.Failed {
			line := (&mutate.VerifyError{Name: failed.Name, Failed: []record.Check{c}}).Error()
			all = append(all, message{printable.Line(line), c.Mend})
		}
	}
	if len(all) == 0 {
		all = append(all, message{f.Error, f.Hint})
	}
	return all
}

// oneLine keeps an error on its line: joined errors have one each.
func oneLine(err error) string {
	return printable.Line(strings.Join(strings.Split(strings.TrimSpace(err.Error()), "\n"), "; "))
}
