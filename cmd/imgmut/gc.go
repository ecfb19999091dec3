package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/imgmut/imgmut/mutate"
)

func (c *commands) gcCommand() *cli.Command {
	return &cli.Command{
		Name: "gc", Usage: "remove layers that no image is made of, unnamed unused bases, what --keep-failed kept and what crashes left", OnUsageError: usageError,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "dry-run", Usage: "only tell what would go"}},
		Action: c.existing(0, 0, "no argument", func(ctx *cli.Context, e *mutate.Engine) error {
			r, err := e.Catalog().Collect(ctx.Context, ctx.Bool("dry-run"))
			if err != nil {
				return err
			}
			return c.print(r, func(w io.Writer) {
				for _, l := range r.Layers {
					fmt.Fprintf(w, "layer %.12s  %s\n", l.Key, l.Title())
				}
				for _, b := range r.Bases {
					fmt.Fprintf(w, "base %.12s  from %s\n", b.Digest, b.Source)
				}
				for _, f := range r.Failed {
					fmt.Fprintln(w, "failed", f)
				}
				switch nothing := len(r.Layers)+len(r.Bases)+len(r.Failed) == 0; {
				case nothing:
					fmt.Fprintln(w, "nothing to remove")
				case !ctx.Bool("dry-run"):
					fmt.Fprintln(w, "freed", humanSize(r.Freed))
				}
			})
		}),
	}
}
