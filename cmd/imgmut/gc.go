package main

import (
	"context"
	"fmt"
	"io"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/printable"
)

var gcCommand = &spec{
	name: "gc", group: groupStore,
	summary: "remove what no image needs",
	text: `Removes layers that no image is made of, bases without a name that nothing is
made of, container images that no layer is made of, what --keep-failed kept and
what crashes left. It waits for those who
use the store, and those who come later wait for it.`,
	flags:    []flag{{name: "dry-run", help: "only tell what would go"}},
	store:    haveStore,
	faults:   []fault.Class{fault.Host, fault.NotFound},
	examples: []string{"imgmut gc --dry-run", "imgmut gc"},
	run: func(ctx context.Context, s *session, a args) (result, error) {
		e, err := s.open(ctx)
		if err != nil {
			return nil, err
		}
		dry := a.flags.Bool("dry-run")
		c, err := e.Collect(ctx, dry)
		if err != nil {
			return nil, err
		}
		return collected{c, dry}, nil
	},
}

type collected struct {
	*mutate.Collected
	DryRun bool `json:"dryRun"`
}

func (c collected) Text(w io.Writer) {
	for _, l := range c.Layers {
		fmt.Fprintf(w, "layer %.12s  %s\n", l.Key, l.Title())
	}
	for _, b := range c.Bases {
		fmt.Fprintf(w, "base %.12s  from %s\n", b.Digest, b.Source)
	}
	for _, digest := range c.Containers {
		fmt.Fprintln(w, "container image", digest)
	}
	for _, f := range c.Failed {
		fmt.Fprintln(w, "failed", f)
	}
	switch {
	case len(c.Layers)+len(c.Bases)+len(c.Containers)+len(c.Failed) == 0:
		fmt.Fprintln(w, "nothing to remove")
	case !c.DryRun:
		fmt.Fprintln(w, "freed", printable.Size(c.Freed))
	}
}
