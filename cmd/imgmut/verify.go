package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/store"
)

func (c *commands) verifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "judge an image: table, filesystems, references, assertions", ArgsUsage: "NAME|FILE", OnUsageError: usageError,
		Description: `Judges an image or base of the store, or any raw image file, without changing it.
For an image of the store that includes what its recipe asserts and whether its
bytes are those that were published, and the verdict is recorded.

EXIT STATUS: 6 the image is not what it should be, 7 it is invalid, 8 there is none.`,
		Action: c.action(1, 1, "the name of an image, or a file", func(ctx *cli.Context, e *mutate.Engine) error {
			name := ctx.Args().First()
			v, err := e.VerifyImage(ctx.Context, name)
			if errors.Is(err, store.ErrNotFound) {
				file := name
				if base, baseErr := e.Catalog().FindBase(name); baseErr == nil {
					file = e.Store.Path(store.Bases, base.Digest, "raw")
				} else if _, statErr := os.Stat(name); statErr != nil {
					return fault.New(fault.NotFound, "imgmut ls lists images and bases", "image, base or file %s: %w", name, store.ErrNotFound)
				}
				v, err = e.Verify(ctx.Context, file)
			}
			if err != nil {
				return err
			}
			err = c.print(v, func(w io.Writer) {
				for _, check := range v.Checks {
					word := "ok"
					if !check.OK {
						word = "FAILED: " + check.Detail
					}
					fmt.Fprintf(w, "%s: %s\n", check.Name, word)
				}
			})
			if err == nil && !v.OK {
				err = &mutate.VerifyError{Name: name, Failed: v.Failed()}
			}
			return err
		}),
	}
}
