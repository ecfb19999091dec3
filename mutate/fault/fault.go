// Package fault says whose fault an error is, and what can be done about it.
//
// That is all a caller wants to know of most errors: the command line turns
// the [Class] into an exit status and prints the mend as a hint. So most errors
// need no type of their own; they are made here, where they happen, by [New].
// An error type is for what a caller takes out of it. Such a type, and those of
// packages that import nothing of ours, say the same by two methods:
//
//	Fault() string // the class
//	Hint() string  // the mend, or ""
package fault

import (
	"context"
	"fmt"
	"io/fs"
	"syscall"
)

// Class is whose fault an error is.
type Class string

// The classes. An error that is of none is unexpected: a fault of imgmut's own.
const (
	Interrupted Class = "interrupted" // the user's wish
	Usage       Class = "usage"       // the command line asks for what cannot be
	Recipe      Class = "recipe"      // the recipe is wrong in itself
	Host        Class = "host"        // the machine lacks a program, a right, room
	Step        Class = "step"        // a step of the recipe failed
	Verdict     Class = "verdict"     // the finished image is not what it should be
	Image       Class = "image"       // an image or base is damaged, or of a sort that imgmut cannot work on
	NotFound    Class = "not found"   // there is no object or file of that name
)

// order decides where several causes meet, the first that is there: a step
// that was interrupted was interrupted, and one that filled the store did not
// fail by itself.
var order = []Class{Interrupted, Usage, Recipe, Host, Step, kernelHost, Verdict, Image, NotFound}

// kernelHost is [Host] as only the kernel says it, with an errno. Inside a
// step that is about the image, so it counts less than [Step].
const kernelHost Class = "host, says the kernel"

// mended is an error with a class and a mend.
type mended struct {
	error
	class Class
	mend  string
}

// Fault is the error's class.
func (e *mended) Fault() string { return string(e.class) }

// Hint is what can be done about the error.
func (e *mended) Hint() string { return e.mend }

func (e *mended) Unwrap() error { return e.error }

// New makes an error of a class. mend is a sentence for the user, without a
// capital and a period, or "". The rest is as for [fmt.Errorf], with %w.
func New(c Class, mend, format string, args ...any) error {
	return &mended{fmt.Errorf(format, args...), c, mend}
}

// Of gives the class of an error, "" if it has none.
func Of(err error) Class {
	found := map[Class]bool{}
	for e := range parts(err) {
		switch f, ok := e.(interface{ Fault() string }); {
		case ok && f.Fault() != "":
			found[Class(f.Fault())] = true
		case e == context.Canceled:
			found[Interrupted] = true
		case e == fs.ErrPermission, e == syscall.EACCES, e == syscall.EPERM, e == syscall.ENOSPC, e == syscall.EROFS:
			found[kernelHost] = true
		case e == fs.ErrNotExist, e == syscall.ENOENT:
			found[NotFound] = true
		}
	}
	for _, c := range order {
		if found[c] && c == kernelHost {
			return Host
		}
		if found[c] {
			return c
		}
	}
	return ""
}

// Mend gives what can be done about an error: the word of its outermost part
// that has one, "" if none has.
func Mend(err error) string {
	for e := range parts(err) {
		if h, ok := e.(interface{ Hint() string }); ok && h.Hint() != "" {
			return h.Hint()
		}
	}
	return ""
}

// parts walks an error and all that it wraps, outermost first.
func parts(err error) func(yield func(error) bool) {
	return func(yield func(error) bool) { walk(err, yield) }
}

func walk(err error, yield func(error) bool) bool {
	if err == nil {
		return true
	}
	if !yield(err) {
		return false
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return walk(e.Unwrap(), yield)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if !walk(inner, yield) {
				return false
			}
		}
	}
	return true
}
