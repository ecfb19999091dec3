package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/imgmut/imgmut/mutate/fault"
)

// foreign is an error of a package that knows nothing of this one.
type foreign struct {
	class string
	error
}

func (f foreign) Fault() string { return f.class }
func (f foreign) Unwrap() error { return f.error }

// TestOf: an error has the class of what matters most of all that it wraps.
func TestOf(t *testing.T) {
	step := func(err error) error { return foreign{"step", err} }
	host := fault.New(fault.Host, "", "no tool")
	for _, tc := range []struct {
		name string
		err  error
		want fault.Class
	}{
		{"nil", nil, ""},
		{"any other", errors.New("x"), ""},
		{"made", fault.New(fault.Usage, "", "x"), fault.Usage},
		{"wrapped", fmt.Errorf("a: %w", fault.New(fault.Image, "", "x")), fault.Image},
		{"joined", errors.Join(errors.New("x"), host), fault.Host},
		{"host before step", step(host), fault.Host},
		{"step before errno", step(syscall.ENOSPC), fault.Step},
		{"step finds nothing", step(syscall.ENOENT), fault.Step},
		{"errno alone", &fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}, fault.Host},
		{"errno before verdict", fmt.Errorf("%w: %w", foreign{"verdict", nil}, syscall.EROFS), fault.Host},
		{"no file", &fs.PathError{Op: "open", Path: "x", Err: syscall.ENOENT}, fault.NotFound},
		{"no file by its general name", fs.ErrNotExist, fault.NotFound},
		{"interrupted step", step(context.Canceled), fault.Interrupted},
		{"foreign without a class", foreign{"", host}, fault.Host},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := fault.Of(tc.err); got != tc.want {
				t.Errorf("Of(%v) = %q, want %q", tc.err, got, tc.want)
			}
		})
	}
}

// TestMend: the outermost part that knows a mend has the word.
func TestMend(t *testing.T) {
	inner := fault.New(fault.Host, "install x", "no x")
	for _, tc := range []struct {
		name string
		err  error
		want string
	}{
		{"nil", nil, ""},
		{"none", errors.New("x"), ""},
		{"inner", fmt.Errorf("a: %w", inner), "install x"},
		{"outer", fault.New(fault.Image, "try y", "a: %w", inner), "try y"},
		{"outer without", fault.New(fault.Image, "", "a: %w", inner), "install x"},
		{"second of two", errors.Join(errors.New("b"), inner), "install x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := fault.Mend(tc.err); got != tc.want {
				t.Errorf("Mend(%v) = %q, want %q", tc.err, got, tc.want)
			}
		})
	}
}

// TestNewWraps: what an error wraps is found by errors.Is.
func TestNewWraps(t *testing.T) {
	err := fault.New(fault.Host, "", "read %s: %w", "f", syscall.EIO)
	if !errors.Is(err, syscall.EIO) || err.Error() != "read f: input/output error" {
		t.Errorf("New = %v", err)
	}
}
