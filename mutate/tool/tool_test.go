package tool

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/fault"
)

// program puts a shell script into the PATH under the name of a program of the
// list, so that what Run makes of each outcome can be told without a disk.
func program(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
}

func TestRun(t *testing.T) {
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	t.Setenv("LANGUAGE", "de")
	program(t, "blkid", `echo "$LC_ALL,$LANGUAGE,$1,$(cat)"; echo aside >&2`)
	out, err := Run(context.Background(), Call{Program: "blkid", Args: []string{"arg"}, Stdin: strings.NewReader("in")})
	if err != nil || string(out) != "C,,arg,in\n" {
		t.Errorf("Run = %q, %v", out, err)
	}
	out, err = Run(context.Background(), Call{Program: "blkid", Env: []string{"LC_ALL=C.UTF-8"}, Stdin: strings.NewReader("")})
	if err != nil || string(out) != "C.UTF-8,,,\n" {
		t.Errorf("Run with an environment = %q, %v", out, err)
	}
}

func TestRunFails(t *testing.T) {
	program(t, "blkid", "echo found; echo why >&2; exit 8")
	out, err := Run(context.Background(), Call{Program: "blkid", What: "probe x"})
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Status != 8 || exit.Report != "found\nwhy\n" || string(out) != "found\n" {
		t.Fatalf("Run = %q, %#v", out, err)
	}
	if want := "probe x: blkid: exit status 8: found why"; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}

// TestRunKeepsTheStart of what a program prints, and lets it print the rest.
func TestRunKeepsTheStart(t *testing.T) {
	program(t, "blkid", "echo first; head -c 8M /dev/zero; echo why >&2; head -c 8M /dev/zero >&2; exit 8")
	out, err := Run(context.Background(), Call{Program: "blkid", What: "probe x"})
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Status != 8 {
		t.Fatalf("Run = %v, want the program's status", err)
	}
	if len(out) != maxOutput || !strings.HasPrefix(string(out), "first\n") {
		t.Errorf("it kept %d bytes of the output, %.10q first", len(out), out)
	}
	if len(err.Error()) > 2*maxSaid {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
	if len(exit.Report) != 2*maxOutput || !strings.HasPrefix(exit.Report[maxOutput:], "why\n") {
		t.Errorf("it kept %d bytes of the report", len(exit.Report))
	}
}

func TestRunMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Run(context.Background(), Call{Program: "btrfs", What: "check x"})
	if fault.Of(err) != fault.Host || fault.Mend(err) != "install the package btrfs-progs" ||
		!strings.Contains(err.Error(), "check x: btrfs is not installed") {
		t.Errorf("Run = %v, hint %q", err, fault.Mend(err))
	}
}

func TestRunInterrupted(t *testing.T) {
	program(t, "blkid", "exec sleep 60")
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	if _, err := Run(ctx, Call{Program: "blkid"}); !errors.Is(err, cause) {
		t.Errorf("Run = %v, want the cause of the interrupt", err)
	}
}

// TestPrograms: each is there once and says where to get it.
func TestPrograms(t *testing.T) {
	var names []string
	for _, p := range Programs() {
		if slices.Contains(names, p.Name) || p.Package == "" {
			t.Errorf("program %+v is there twice, or has no package", p)
		}
		names = append(names, p.Name)
	}
}
