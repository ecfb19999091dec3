package mutate

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/guest"
)

// scopedGuest is the guest as one step sees it: with the step's environment,
// network and time, and its output going to the step's lines.
type scopedGuest struct {
	*guest.Guest
	image    *disk.Image
	env      map[string]string
	network  bool
	timeout  time.Duration // of the whole step; 0 for none
	deadline time.Time     // when it is over
	out      *lineWriter
	step     string            // which it is
	sealed   *sealed           // what the guest cannot see
	lending  *lending          // what the step is lent, nil if nothing
	warned   bool              // of a command that needs to see it
	scratch  string            // a directory for files on their way there
	note     func(text string) // told what the user should know
}

// Run implements [step.Guest].
func (s *scopedGuest) Run(ctx context.Context, c agent.Command) error {
	if at := s.sealed.mentioned(c); at != "" && !s.warned && s.lending == nil {
		s.warned = true
		s.note(fmt.Sprintf("%s: the kernel of this machine has no vfat, so its commands find nothing below %s and cannot "+
			"write there; write and copy can, and a step that says boot: true", s.step, at))
	}
	env := maps.Clone(s.env)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, c.Env)
	c.Env = env
	if s.timeout > 0 {
		// The agent keeps the time, so that it can end the command in order. It
		// takes 0 for no limit.
		if left := max(time.Until(s.deadline), time.Millisecond); c.Timeout == 0 || left < c.Timeout {
			c.Timeout = left
		}
	}
	exec := func(c agent.Command) error { return s.Exec(ctx, c, s.network, s.out.write) }
	err := error(nil)
	if s.lending != nil {
		err = s.lending.run(ctx, c, s.scratch, exec)
	} else {
		err = exec(c)
	}
	var exit *agent.ExitError
	if errors.As(err, &exit) && s.timeout > 0 && time.Now().After(s.deadline) {
		exit.Reason = s.overtime()
	}
	return err
}

// Put implements [step.Guest].
func (s *scopedGuest) Put(ctx context.Context, write func(*tar.Writer) error) error {
	ctx, done := s.within(ctx)
	defer done()
	if s.sealed != nil {
		return s.putSorted(ctx, write)
	}
	return s.Guest.Put(ctx, write)
}

// ReadFile implements [step.Guest].
func (s *scopedGuest) ReadFile(ctx context.Context, name string) ([]byte, error) {
	ctx, done := s.within(ctx)
	defer done()
	if b, ok, err := s.sealed.readFile(name); ok {
		return b, err
	}
	return s.Guest.ReadFile(ctx, name)
}

// Stat implements [step.Guest].
func (s *scopedGuest) Stat(ctx context.Context, name string) (*agent.Stat, error) {
	ctx, done := s.within(ctx)
	defer done()
	if st, ok, err := s.sealed.stat(name); ok {
		return st, err
	}
	return s.Guest.Stat(ctx, name)
}

// Files implements [step.Guest].
func (s *scopedGuest) Files() fs.FS { return disk.TreeAt(s.Root()) }

// Loaders implements [step.Guest].
func (s *scopedGuest) Loaders() (*boot.Loaders, error) {
	if err := s.Flush(); err != nil { // a FAT volume is read from the fork
		return nil, err
	}
	return s.image.Loaders()
}

// within ends what the agent cannot end, with the step's time.
func (s *scopedGuest) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.timeout == 0 {
		return ctx, func() {}
	}
	return context.WithDeadlineCause(ctx, s.deadline, errors.New(s.overtime()))
}

func (s *scopedGuest) overtime() string {
	return fmt.Sprintf("the step was still running after %s", s.timeout)
}
