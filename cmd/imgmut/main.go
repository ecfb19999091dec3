// Command imgmut makes disk images of declarative recipes, with a layer after
// each step. See README.md.
//
// Standard output carries results and nothing else: the path of the image, or
// one JSON value with --json. Everything else goes to standard error. Messages
// begin with "imgmut:", have no capital and no period, and are followed by a
// "hint:" line where there is something the user can do.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/machined"
	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/mount"
)

func main() { os.Exit(run(os.Args, os.Stdout, os.Stderr)) }

// run is main without the exit, and also what this binary is inside guests and
// as the first process of a private host.
func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 2 {
		switch args[1] {
		case agent.Arg:
			return inner(agent.Launch())
		case agent.ServeArg:
			return inner(agent.Serve(os.Stdin, os.Stdout))
		case agent.InitArg:
			return inner(agent.Init())
		}
	}
	switch {
	case len(args) > 1 && args[1] == privateHostArg:
		return inner(machined.InitPrivateHost(args[2:]))
	case len(args) > 3 && args[1] == treeArg:
		inner(mount.Become(args[2], args[3:]))
		return exitHost // and not 1, by which systemd-nspawn says that it cannot use an image
	}
	// An apply makes fifty megabytes of garbage, and to collect that eighteen times took 12 ms
	// of 240. With this, of which no byte is ever touched, the collector waits until there is
	// as much again.
	ballast := make([]byte, 12<<20)
	defer runtime.KeepAlive(ballast)
	// Disk tools live where a plain user's PATH, or that of su, does not lead.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	ctx, stop := interruptible()
	defer stop()
	s := &session{commands: commands, stdout: stdout, stderr: stderr}
	if len(args) > 1 && args[1] == suggestArg {
		return s.suggest(ctx, args[2:])
	}
	err := s.parse(ctx, args)
	err = errors.Join(err, s.close())
	var step *mutate.StepError
	if err != nil && context.Cause(ctx) == errInterrupted && !errors.As(err, &step) {
		err = errInterrupted // whatever it did to what was under way
	}
	return s.report(err)
}

// privateHostArg and treeArg are the words by which the binary starts itself as the
// first process of a private host, and to make the tree of a guest. Like those of
// the agent they are no commands: nobody has reason to type them.
const (
	privateHostArg = "private-host"
	treeArg        = "tree"
)

func inner(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "imgmut:", err)
		return 1
	}
	return 0
}

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = fault.New(fault.Interrupted, "", "interrupted")

// interruptible gives a context that ends with the first SIGINT, SIGTERM or
// SIGHUP; all that was started is then cleared away. A second one does not wait.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		<-signals
		cancel(errInterrupted)
		<-signals
		os.Exit(exitInterrupted)
	}()
	return ctx, func() { signal.Stop(signals) }
}
