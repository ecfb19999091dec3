package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/store"
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
		Action: func(ctx *cli.Context) error {
			if err := wantArgs(ctx, 1, 2, "a file and, if you like, a name for it"); err != nil {
				return err
			}
			e, err := c.open(ctx)
			if err != nil {
				return err
			}
			name := ctx.Args().Get(1)
			if strings.ContainsAny(name, "/ \t\n") || strings.HasPrefix(name, ".") {
				return fmt.Errorf("%w: %q cannot be a name", mutate.ErrUsage, name)
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
		},
	}
}

// entry is a line of ls.
type entry struct {
	Type   string    `json:"type"` // base or image
	Name   string    `json:"name"`
	Size   int64     `json:"size"` // bytes
	Made   time.Time `json:"made"`
	Digest string    `json:"digest"`
	About  string    `json:"about"` // what it was made of
	Path   string    `json:"path"`
}

func (c *commands) lsCommand() *cli.Command {
	return &cli.Command{
		Name: "ls", Usage: "list bases and images", OnUsageError: usageError,
		Action: func(ctx *cli.Context) error {
			if err := wantArgs(ctx, 0, 0, "no argument"); err != nil {
				return err
			}
			e, err := c.open(ctx)
			if err != nil {
				return err
			}
			list, err := entries(e)
			if err != nil {
				return err
			}
			return c.print(list, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				fmt.Fprintln(t, "TYPE\tNAME\tSIZE\tMADE\tDIGEST\tABOUT")
				for _, l := range list {
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.12s\t%s\n", l.Type, l.Name, humanSize(l.Size), l.Made.Local().Format("2006-01-02 15:04"), l.Digest, l.About)
				}
				t.Flush()
			})
		},
	}
}

func entries(e *mutate.Engine) ([]entry, error) {
	list := []entry{}
	bases, err := e.Bases()
	if err != nil {
		return nil, err
	}
	for _, b := range bases {
		name := strings.Join(b.Names, ",")
		if name == "" {
			name = b.Digest[:12]
		}
		list = append(list, entry{"base", name, b.Size, b.Imported, b.Digest, b.Layout.OS + " " + b.Layout.Arch + ", from " + b.Source, e.Store.Path(store.Bases, b.Digest, "raw")})
	}
	images, err := e.Images()
	if err != nil {
		return nil, err
	}
	for _, i := range images {
		about := fmt.Sprintf("%d steps on %s", len(i.Keys)-1, i.BaseName)
		if i.BaseName == "" {
			about = fmt.Sprintf("%d steps on %.12s", len(i.Keys)-1, i.Base)
		}
		list = append(list, entry{"image", i.Name, i.Size, i.Made, i.Digest, about, e.Store.Path(store.Images, i.Name, "raw")})
	}
	return list, nil
}

func (c *commands) inspectCommand() *cli.Command {
	return &cli.Command{
		Name: "inspect", Usage: "print all that is known of an image or base, as JSON", ArgsUsage: "NAME", OnUsageError: usageError,
		Action: func(ctx *cli.Context) error {
			if err := wantArgs(ctx, 1, 1, "the name of an image or base"); err != nil {
				return err
			}
			e, err := c.open(ctx)
			if err != nil {
				return err
			}
			var record any
			record, err = e.FindImage(ctx.Args().First())
			if errors.Is(err, store.ErrNotFound) {
				record, err = e.FindBase(ctx.Args().First())
			}
			if errors.Is(err, store.ErrNotFound) {
				return withHint(fmt.Errorf("image or base %s: %w", ctx.Args().First(), store.ErrNotFound), "imgmut ls lists them")
			}
			if err != nil {
				return err
			}
			return c.print(record, func(w io.Writer) {
				j := json.NewEncoder(w)
				j.SetIndent("", "  ")
				j.Encode(record)
			})
		},
	}
}

func (c *commands) rmCommand() *cli.Command {
	return &cli.Command{
		Name: "rm", Usage: "remove an image or a base", ArgsUsage: "NAME…", OnUsageError: usageError,
		Description: "The layers an image was made of stay, for the next apply; imgmut gc removes them.",
		Action: func(ctx *cli.Context) error {
			if err := wantArgs(ctx, 1, 1000, "the names of images or bases"); err != nil {
				return err
			}
			e, err := c.open(ctx)
			if err != nil {
				return err
			}
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
		},
	}
}

func (c *commands) gcCommand() *cli.Command {
	return &cli.Command{
		Name: "gc", Usage: "remove layers that no image is made of, unnamed unused bases, and what crashes left", OnUsageError: usageError,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "dry-run", Usage: "only tell what would go"}},
		Action: func(ctx *cli.Context) error {
			if err := wantArgs(ctx, 0, 0, "no argument"); err != nil {
				return err
			}
			e, err := c.open(ctx)
			if err != nil {
				return err
			}
			r, err := e.Collect(ctx.Context, ctx.Bool("dry-run"))
			if err != nil {
				return err
			}
			return c.print(r, func(w io.Writer) {
				for _, k := range r.Layers {
					fmt.Fprintln(w, "layer", k)
				}
				for _, d := range r.Bases {
					fmt.Fprintln(w, "base", d)
				}
			})
		},
	}
}

func (c *commands) verifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "judge an image: table, filesystems, references", ArgsUsage: "NAME|FILE", OnUsageError: usageError,
		Description: `Judges an image of the store, or any raw image file, without changing it. For an
image of the store the verdict is recorded.

EXIT STATUS: 6 the image is not what it should be, 7 it is invalid, 8 there is none.`,
		Action: func(ctx *cli.Context) error {
			if err := wantArgs(ctx, 1, 1, "the name of an image, or a file"); err != nil {
				return err
			}
			e, err := c.open(ctx)
			if err != nil {
				return err
			}
			name := ctx.Args().First()
			v, err := e.VerifyImage(ctx.Context, name)
			if errors.Is(err, store.ErrNotFound) {
				if _, statErr := os.Stat(name); statErr != nil {
					return withHint(fmt.Errorf("image or file %s: %w", name, store.ErrNotFound), "imgmut ls lists the images")
				}
				v, err = e.Verify(ctx.Context, name)
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
		},
	}
}

// humanSize gives bytes in binary units.
func humanSize(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f := float64(n)
	i := 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if f == float64(int64(f)) {
		return fmt.Sprintf("%d %s", int64(f), units[i])
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
