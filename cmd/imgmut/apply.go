package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/recipes"
)

var applyCommand = &spec{
	name: "apply", group: groupBuild, args: "RECIPE…",
	summary: "make the images of recipes",
	text: `Prints the absolute path of each finished image on standard output, one a
line, and nothing else. Layers that exist are reused; for each step that is
run it says why.

A failed apply makes no image; layers of the steps before are kept. If the image
is made and only --output or registering it fails, it is in the store all the same.

Several recipes are all read before the first is applied. The first that fails ends
it: the images before it are made, and the recipes after it are not applied.`,
	flags: []flag{
		{name: "output", short: "o", value: "FILE",
			help: "also write the image to a file, raw and writable, and print that path"},
		{name: "set", value: "PATH=VALUE", many: true,
			help: "set a value of the recipe, as name=web2, steps[0].write.content=x (from 0) or steps[NAME].write.content=x"},
		{name: "no-cache", help: "reuse no layer"},
		{name: "refresh", value: "KIND-OR-NAME", many: true,
			help: "make the layers of such steps anew, once for all recipes, and those after"},
		{name: "replace", help: "also replace the image of another recipe that has the same name"},
		{name: "source-date-epoch", value: "SECONDS", env: "SOURCE_DATE_EPOCH",
			help: "give no file that a step copies or writes now a time after that, in seconds since 1970; layers that are reused keep theirs"},
		{name: "keep-failed", help: "keep the image as it was before the step that failed, or that did not pass, until gc"},
	},
	store: makesStore,
	faults: []fault.Class{
		fault.Recipe, fault.Host, fault.Step, fault.Verdict, fault.Image, fault.NotFound,
	},
	examples: []string{
		"img=$(imgmut apply recipe.yaml)",
		"imgmut apply recipe.yaml --set name=web2 --output web2.raw",
		"imgmut apply --refresh site web.yaml db.yaml",
	},
	run: apply,
}

// applied is what is printed of a finished image.
type applied struct {
	Name    string        `json:"name"`
	Path    string        `json:"path"`
	Digest  string        `json:"digest"`
	Key     string        `json:"key"`
	Steps   int           `json:"steps"`
	Reused  int           `json:"reused"`
	Took    time.Duration `json:"took"` // nanoseconds
	Verdict string        `json:"verdict"`
}

func (a applied) Text(w io.Writer) { fmt.Fprintln(w, a.Path) }

func apply(ctx context.Context, s *session, a args) (result, error) {
	o, err := applyOptions(a)
	if err != nil {
		return nil, err
	}
	all, err := loadAll(a.list, a.flags.StringSlice("set"))
	if err == nil {
		err = o.Check(all)
	}
	if err == nil {
		err = checkNames(all)
	}
	if err != nil {
		return nil, err
	}
	e, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	for n, r := range all {
		if n == len(all)-1 {
			o.HostDone = s.wire.end
		}
		started := time.Now()
		made, err := e.Apply(ctx, r, o)
		if err != nil {
			return nil, ofSeveral(err, r, all, all[n+1:])
		}
		if err := s.print(applied{
			Name: made.Name, Path: made.Path, Digest: made.Digest, Key: string(made.Keys[len(made.Keys)-1]),
			Steps: made.Steps, Reused: made.Reused, Took: time.Since(started), Verdict: "ok",
		}); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// applyOptions are what the flags say of every recipe.
func applyOptions(a args) (o mutate.ApplyOptions, err error) {
	if a.flags.IsSet("output") && (a.flags.String("output") == "" || len(a.list) > 1) {
		return o, fault.New(fault.Usage, "", "--output wants one file, for one recipe")
	}
	o = mutate.ApplyOptions{
		Output: a.flags.String("output"), NoCache: a.flags.Bool("no-cache"), Refresh: a.flags.StringSlice("refresh"),
		KeepFailed: a.flags.Bool("keep-failed"), Replace: a.flags.Bool("replace"),
	}
	if epoch := a.flags.String("source-date-epoch"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return o, fault.New(fault.Usage, "", "--source-date-epoch %s: want seconds since 1970", epoch)
		}
		o.Epoch = time.Unix(seconds, 0)
	}
	return o, nil
}

// ofSeveral makes an error that of one recipe, where there are several: which it is, and
// which are left.
func ofSeveral(err error, r *recipes.Recipe, all, left []*recipes.Recipe) error {
	if len(all) > 1 {
		err = fmt.Errorf("%s: %w", r.Name, err)
	}
	if len(left) == 0 {
		return err
	}
	u := &unapplied{error: err}
	for _, r := range left {
		u.names = append(u.names, r.Name)
	}
	return u
}

// loadAll reads all recipes before the first is applied: a mistake in the last
// should not be found after an hour.
func loadAll(files, settings []string) ([]*recipes.Recipe, error) {
	var sets []recipes.Set
	for _, text := range settings {
		set, err := recipes.ParseSet(text)
		if err != nil {
			path, _, _ := strings.Cut(text, "=")
			return nil, fault.New(fault.Usage, "", "--set %s: %w", path, err)
		}
		sets = append(sets, set)
	}
	var all []*recipes.Recipe
	for _, file := range files {
		r, err := load(file, sets)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// load reads a recipe and finds all that is wrong with it at once.
func load(file string, sets []recipes.Set) (*recipes.Recipe, error) {
	if file == "-" {
		return nil, fault.New(fault.Usage, "write it to a file: the paths in it are relative to where that is",
			"apply -: a recipe is read from a file, not from standard input")
	}
	r, err := recipes.Load(file, sets...)
	if r == nil {
		return nil, err
	}
	return r, recipes.Merge(err, mutate.Check(r), mutate.CheckInputs(r))
}

// checkNames refuses two recipes of one name, of which the second would replace
// the image of the first.
func checkNames(all []*recipes.Recipe) error {
	first := map[string]string{}
	for _, r := range all {
		file, err := filepath.Abs(r.File)
		if err != nil {
			return err
		}
		if other, ok := first[r.Name]; ok && other != file {
			return fault.New(fault.Usage, "give one of them another name: the second would replace the image of the first",
				"name %s: two recipes have it: %s and %s", r.Name, other, r.File)
		}
		first[r.Name] = file
	}
	return nil
}
