package main

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/recipes"
)

func (c *commands) applyCommand() *cli.Command {
	return &cli.Command{
		Name:      "apply",
		Usage:     "make the image of a recipe",
		ArgsUsage: "RECIPE…",
		Description: `Prints the absolute path of each finished image on standard output, one a
line, and nothing else. Layers that exist are reused; for each step that is
run it says why.

EXIT STATUS: 3 the recipe is invalid, 5 a step failed, 6 the image is not
what it should be, 7 the base is invalid, 8 there is no such recipe or base.
A failed apply makes no image; layers of the steps before are kept. If the image
is made and only --output or registering it fails, it is in the store all the same.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "also write the image to `FILE`, writable, and print that path"},
			&cli.StringSliceFlag{Name: "set", Usage: "set a value of the recipe: `PATH=VALUE`, as name=web2 or steps[0].write.content=x"},
			&cli.BoolFlag{Name: "no-cache", Usage: "reuse no layer"},
			&cli.StringSliceFlag{Name: "refresh", Usage: "do not reuse the layer of the steps of that `KIND-OR-NAME`, nor those after"},
			&cli.BoolFlag{Name: "replace", Usage: "also replace the image of another recipe that has the same name"},
			&cli.BoolFlag{Name: "keep-failed", Usage: "keep the image as it was before the step that failed, or that did not pass, until gc"},
		},
		OnUsageError: usageError,
		Action:       c.apply,
	}
}

// result is what apply prints with --json.
type result struct {
	Name    string        `json:"name"`
	Path    string        `json:"path"`
	Digest  string        `json:"digest"`
	Key     string        `json:"key"`
	Steps   int           `json:"steps"`
	Reused  int           `json:"reused"`
	Took    time.Duration `json:"took"` // nanoseconds
	Verdict string        `json:"verdict"`
}

// load reads a recipe and finds all that is wrong with it at once.
func load(file string, sets []recipes.Set) (*recipes.Recipe, error) {
	r, err := recipes.Load(file, sets...)
	if r == nil {
		return nil, err
	}
	return r, recipes.Merge(err, mutate.Check(r), mutate.CheckInputs(r))
}

func (c *commands) apply(ctx *cli.Context) error {
	if err := wantArgs(ctx, 1, 1000, "the file of a recipe"); err != nil {
		return err
	}
	if ctx.IsSet("output") && (ctx.String("output") == "" || ctx.NArg() > 1) {
		return fault.New(fault.Usage, "", "--output wants one file, for one recipe")
	}
	var sets []recipes.Set
	for _, s := range ctx.StringSlice("set") {
		set, err := recipes.ParseSet(s)
		if err != nil {
			return fault.New(fault.Usage, "", "--set %s: %w", s, err)
		}
		sets = append(sets, set)
	}
	// All recipes are read before the first is applied: a mistake in the last
	// should not be found after an hour.
	var all []*recipes.Recipe
	for _, file := range ctx.Args().Slice() {
		r, err := load(file, sets)
		if err != nil {
			return err
		}
		all = append(all, r)
	}
	e, err := c.open(ctx)
	if err != nil {
		return err
	}
	for i, r := range all {
		if i > 0 { // each has a live list of its own
			if c.progress, err = newRenderer(ctx.String("progress"), c.stderr); err != nil {
				return err
			}
		}
		started := time.Now()
		a, err := e.Apply(ctx.Context, r, mutate.ApplyOptions{
			Output: ctx.String("output"), NoCache: ctx.Bool("no-cache"), Refresh: ctx.StringSlice("refresh"), KeepFailed: ctx.Bool("keep-failed"),
			Replace: ctx.Bool("replace"),
		})
		if err != nil {
			return err
		}
		res := result{Name: a.Name, Path: a.Path, Digest: a.Digest, Key: string(a.Keys[len(a.Keys)-1]),
			Steps: a.Steps, Reused: a.Reused, Took: time.Since(started), Verdict: "ok"}
		if err := c.print(res, func(w io.Writer) { fmt.Fprintln(w, a.Path) }); err != nil {
			return err
		}
	}
	return nil
}
