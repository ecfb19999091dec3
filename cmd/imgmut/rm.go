package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/imgmut/imgmut/mutate"
)

func (c *commands) rmCommand() *cli.Command {
	return &cli.Command{
		Name: "rm", Usage: "remove an image or a base", ArgsUsage: "NAME…", OnUsageError: usageError,
		Description: "The layers an image was made of stay, for the next apply; imgmut gc removes them.",
		Action: c.existing(1, 1000, "the names of images or bases", func(ctx *cli.Context, e *mutate.Engine) error {
			for _, name := range ctx.Args().Slice() {
				r, err := e.Remove(ctx.Context, name)
				if err != nil {
					return err
				}
				if err := c.print(r, func(w io.Writer) { fmt.Fprintln(w, name) }); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}
