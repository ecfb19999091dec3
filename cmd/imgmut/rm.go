package main

import (
	"context"
	"fmt"
	"io"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/fault"
)

var rmCommand = &spec{
	name: "rm", group: groupImages, args: "NAME…",
	summary: "remove images and bases",
	text: `All names are looked up before the first is removed. The layers an image was
made of stay, for the next apply; imgmut gc removes them. Of a base with several
names only those given are removed; it goes with the last, or with its digest.`,
	flags:    []flag{{name: "force", help: "also remove a base or image that images are made of"}},
	store:    haveStore,
	faults:   []fault.Class{fault.Host, fault.NotFound},
	examples: []string{"imgmut rm web", "imgmut rm debian-12 --force"},
	run: func(ctx context.Context, s *session, a args) (result, error) {
		e, err := s.open(ctx)
		if err != nil {
			return nil, err
		}
		r, err := e.Remove(ctx, imageNames(e, a.list), a.flags.Bool("force"))
		if err != nil {
			return nil, err
		}
		return removed{r, a.list}, nil
	},
}

type removed struct {
	*mutate.Removed
	names []string // as they were given
}

func (r removed) Text(w io.Writer) {
	for _, name := range r.names {
		fmt.Fprintln(w, name)
	}
}
