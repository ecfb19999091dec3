package main

import (
	"encoding/json"
	"errors"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/store"
)

func (c *commands) inspectCommand() *cli.Command {
	return &cli.Command{
		Name: "inspect", Usage: "print all that is known of an image or base, as JSON", ArgsUsage: "NAME", OnUsageError: usageError,
		Action: c.existing(1, 1, "the name of an image or base", func(ctx *cli.Context, e *mutate.Engine) error {
			var record any
			var err error
			record, err = e.Catalog().FindImage(ctx.Args().First())
			if errors.Is(err, store.ErrNotFound) {
				record, err = e.Catalog().FindBase(ctx.Args().First())
			}
			if errors.Is(err, store.ErrNotFound) {
				return fault.New(fault.NotFound, "imgmut ls lists them", "image or base %s: %w", ctx.Args().First(), store.ErrNotFound)
			}
			if err != nil {
				return err
			}
			return c.print(record, func(w io.Writer) {
				j := json.NewEncoder(w)
				j.SetIndent("", "  ")
				j.Encode(record)
			})
		}),
	}
}
