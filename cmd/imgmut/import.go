package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/recipes"
)

func (c *commands) importCommand() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "take a raw image into the store as a base",
		ArgsUsage: "FILE [NAME]",
		Description: `The image may have a GPT, an MBR, or be one bare filesystem. It is looked into
first and refused if it is damaged. On the store's own filesystem it is
reflinked, else copied with its holes. The file itself is never written.

Prints the base's name, or its digest if it has none.

EXIT STATUS: 7 the image is invalid, 8 there is no such file.`,
		OnUsageError: usageError,
		Action: c.action(1, 2, "a file and, if you like, a name for it", func(ctx *cli.Context, e *mutate.Engine) error {
			name := ctx.Args().Get(1)
			if err := recipes.CheckName(name); name != "" && err != nil {
				return fault.New(fault.Usage, "", "name %q: %w", name, err)
			}
			b, err := e.Import(ctx.Context, ctx.Args().First(), name, "")
			if err != nil {
				return err
			}
			return c.print(b, func(w io.Writer) {
				if name == "" {
					name = b.Digest
				}
				fmt.Fprintln(w, name)
			})
		}),
	}
}
