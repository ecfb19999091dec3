package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/printable"
	"github.com/imgmut/imgmut/mutate/store"
)

// session is one run of the program: what the global flags say, and what was
// opened for them.
type session struct {
	commands       []*spec // that there are
	stdout, stderr io.Writer
	json           bool
	dir            string // of the store
	progress       renderer
	log            *slog.Logger
	wire           *wire
	telling        sync.Mutex // one event at a time
}

// run runs a command and prints its result. A result may come with an error,
// as a verdict does that is not good.
func (s *session) run(ctx context.Context, c *spec, a args) error {
	if c.group == groupHelp { // what it prints depends on nothing else that the flags say
		s.json, s.progress = a.flags.Bool("json"), quiet{}
	} else if err := s.setUp(a); err != nil {
		return err
	}
	if err := c.check(a.list); err != nil {
		return err
	}
	if c.store == haveStore && !store.Exists(s.dir) {
		return fault.New(fault.NotFound, "imgmut import or apply makes one; --store and $IMGMUT_STORE say where",
			"there is no store in %s: %w", s.dir, store.ErrNotFound)
	}
	r, err := c.run(ctx, s, a)
	if r != nil {
		if printErr := s.print(r); err == nil {
			err = printErr
		}
	}
	return err
}

// setUp reads the global flags.
func (s *session) setUp(a args) (err error) {
	s.json = a.flags.Bool("json")
	if s.dir = a.flags.String("store"); s.dir == "" {
		return fault.New(fault.Usage, "", "--store or $IMGMUT_STORE is empty")
	}
	// Lines of several images say of which they are.
	if s.progress, err = newRenderer(a.flags.String("progress"), s.stderr, len(a.list) > 1); err != nil {
		return fault.New(fault.Usage, "", "%w", err)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.flags.String("log-level"))); err != nil {
		return fault.New(fault.Usage, "", "--log-level %s: want debug, info, warn or error", a.flags.String("log-level"))
	}
	s.log = slog.New(slog.NewTextHandler(s.stderr, &slog.HandlerOptions{Level: level}))
	if s.wire, err = newWire(a.flags.String("host"), s.log); err != nil {
		return fault.New(fault.Usage, "", "%w", err)
	}
	return nil
}

// open opens the store.
func (s *session) open(ctx context.Context) (*mutate.Engine, error) {
	st, err := store.Open(ctx, s.dir, func(line string) { s.event(mutate.Event{Type: mutate.EventNote, Text: line}) })
	if err != nil {
		return nil, err
	}
	return s.wire.engine(st, s.event)
}

func (s *session) event(e mutate.Event) {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.progress.event(e)
	if e.Type != mutate.EventOutput && e.Type != mutate.EventProgress {
		s.log.Debug("event", "type", e.Type, "recipe", e.Recipe, "step", e.Step, "name", e.Name,
			"reason", e.Reason, "text", e.Text, "took", e.Took)
	}
}

// print writes a result to standard output.
func (s *session) print(r result) error {
	s.progress.settle()
	if !s.json {
		var b bytes.Buffer
		r.Text(&b)
		return s.write(printable.Text(b.String()))
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.write(string(b) + "\n")
}

// write writes to standard output. If that is full, the store need not be.
func (s *session) write(text string) error {
	if _, err := io.WriteString(s.stdout, text); err != nil {
		return fault.New(fault.Host, "what standard output goes to cannot take it", "%w", err)
	}
	return nil
}

func (s *session) close() error {
	if s.progress != nil {
		s.progress.close()
	}
	if s.wire == nil {
		return nil
	}
	return s.wire.close()
}

// imageNames puts names in place of paths of images in the store: the path is
// what apply prints, and what a script has at hand.
func imageNames(e *mutate.Engine, list []string) []string {
	names := slices.Clone(list)
	for i, arg := range list {
		if name := strings.TrimSuffix(filepath.Base(arg), ".raw"); e.Catalog().ImageFile(name) == arg {
			names[i] = name
		}
	}
	return names
}
