package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/imgmut/imgmut/mutate"
)

func (c *commands) rmCommand() *cli.Command {
	return &cli.Command{
		Name: "rm", Usage: "remove images and bases", ArgsUsage: "NAME…", OnUsageError: usageError,
		Description: `All names are looked up before the first is removed. The layers an image was
made of stay, for the next apply; imgmut gc removes them.`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "force", Usage: "also remove a base that images are made of"}},
		Action: c.existing(1, 1000, "the names of images or bases", func(ctx *cli.Context, e *mutate.Engine) error {
			r, err := e.Remove(ctx.Context, ctx.Args().Slice(), ctx.Bool("force"))
			if err != nil {
				return err
			}
			return c.print(r, func(w io.Writer) {
				for _, name := range ctx.Args().Slice() {
					fmt.Fprintln(w, name)
				}
			})
		}),
	}
}
