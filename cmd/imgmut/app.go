package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/store"
)

// commands is one run of the program: the global flags, and what was opened
// for them.
type commands struct {
	stdout, stderr io.Writer
	json           bool
	progress       renderer
	log            *slog.Logger
	wire           *wire
}

const description = `imgmut forks a base raw image by reflink, runs a recipe's steps in it under
systemd-nspawn, keeps the disk after every step as a layer, gives the result
an identity of its own and verifies it. What did not change is not run again.

   img=$(imgmut apply recipe.yaml)

EXIT STATUS:
     0  done
     1  unexpected
     2  wrong use
     3  recipe invalid: every problem, each with its place
     4  the host lacks something (imgmut doctor tells what, and the mend)
     5  a step failed
     6  the image is not what it should be
     7  a base or image is invalid: damaged, empty, truncated, no usable root
     8  not found: a recipe, a base, a name
   130  interrupted`

func (c *commands) app() *cli.App {
	cli.VersionPrinter = func(*cli.Context) { fmt.Fprintln(c.stdout, versionLine()) }
	return &cli.App{
		Name:                      "imgmut",
		Usage:                     "build disk images the way containers are built",
		Description:               description,
		Version:                   version(),
		Suggest:                   true,
		EnableBashCompletion:      true,
		DisableSliceFlagSeparator: true, // --set a=1,2 is one setting
		Writer:                    c.stdout,
		ErrWriter:                 c.stderr,
		ExitErrHandler:            func(*cli.Context, error) {}, // report does it
		OnUsageError:              usageError,
		Before:                    c.before,
		Action: func(ctx *cli.Context) error {
			if ctx.Args().Present() {
				return c.unknownCommand(ctx)
			}
			return cli.ShowAppHelp(ctx)
		},
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "store", Value: "/var/lib/imgmut", EnvVars: []string{"IMGMUT_STORE"}, Usage: "`DIR` that holds bases, layers and images"},
			&cli.StringFlag{Name: "host", Value: "auto", EnvVars: []string{"IMGMUT_HOST"}, Usage: "whose systemd runs the steps: auto, system or private"},
			&cli.StringFlag{Name: "progress", Value: "auto", EnvVars: []string{"IMGMUT_PROGRESS"}, Usage: "auto, tty, plain, json or quiet"},
			&cli.BoolFlag{Name: "json", Usage: "print the result as JSON"},
			&cli.StringFlag{Name: "log-level", Value: "warn", Usage: "debug, info, warn or error"},
		},
		Commands: []*cli.Command{
			c.applyCommand(), c.importCommand(), c.lsCommand(), c.inspectCommand(), c.verifyCommand(),
			c.rmCommand(), c.gcCommand(), c.doctorCommand(), c.versionCommand(),
		},
	}
}

// usageError also tells who puts a global flag behind the command where it
// belongs.
func usageError(ctx *cli.Context, err error, _ bool) error {
	mend := ""
	_, flag, ok := strings.Cut(err.Error(), "flag provided but not defined: -")
	if ok && ctx.Command != nil && slices.ContainsFunc(ctx.App.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), strings.TrimPrefix(flag, "-")) }) {
		mend = fmt.Sprintf("put it before the command: imgmut --%s … %s", strings.TrimPrefix(flag, "-"), ctx.Command.Name)
	}
	return fault.New(fault.Usage, mend, "%w", err)
}

func (c *commands) unknownCommand(ctx *cli.Context) error {
	name := ctx.Args().First()
	mend := "imgmut --help lists the commands"
	if strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml") {
		mend = "imgmut apply " + name
	}
	return fault.New(fault.Usage, mend, "no such command: %s", name)
}

// before reads the global flags.
func (c *commands) before(ctx *cli.Context) error {
	c.json = ctx.Bool("json")
	if ctx.String("store") == "" {
		return fault.New(fault.Usage, "", "--store or $IMGMUT_STORE is empty")
	}
	var err error
	if c.progress, err = newRenderer(ctx.String("progress"), c.stderr); err != nil {
		return fault.New(fault.Usage, "", "%w", err)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(ctx.String("log-level"))); err != nil {
		return fault.New(fault.Usage, "", "--log-level %s: want debug, info, warn or error", ctx.String("log-level"))
	}
	c.log = slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: level}))
	c.wire, err = newWire(ctx.String("host"), c.log)
	if err != nil {
		return fault.New(fault.Usage, "", "%w", err)
	}
	return nil
}

// existing is [commands.action] for a command that has no use for a store that
// is not there yet: it must not make one.
func (c *commands) existing(least, most int, what string, do func(*cli.Context, *mutate.Engine) error) cli.ActionFunc {
	action := c.action(least, most, what, do)
	return func(ctx *cli.Context) error {
		if dir := ctx.String("store"); !store.Exists(dir) {
			return fault.New(fault.NotFound, "imgmut import or apply makes one; --store and $IMGMUT_STORE say where",
				"there is no store in %s: %w", dir, store.ErrNotFound)
		}
		return action(ctx)
	}
}

// open opens the store.
func (c *commands) open(ctx *cli.Context) (*mutate.Engine, error) {
	s, err := store.Open(ctx.Context, ctx.String("store"), func(line string) {
		c.progress.event(mutate.Event{Type: mutate.EventNote, Text: line})
	})
	if err != nil {
		return nil, err
	}
	return c.wire.engine(s, c.event)
}

func (c *commands) event(e mutate.Event) {
	c.progress.event(e)
	if e.Type != mutate.EventOutput && e.Type != mutate.EventProgress {
		c.log.Debug("event", "type", e.Type, "step", e.Step, "name", e.Name, "reason", e.Reason, "text", e.Text, "took", e.Took)
	}
}

// action is the action of a command that works on the store and takes least to
// most arguments, which what describes.
func (c *commands) action(least, most int, what string, do func(*cli.Context, *mutate.Engine) error) cli.ActionFunc {
	return func(ctx *cli.Context) error {
		if err := wantArgs(ctx, least, most, what); err != nil {
			return err
		}
		e, err := c.open(ctx)
		if err != nil {
			return err
		}
		return do(ctx, e)
	}
}

// print writes the result of a command.
func (c *commands) print(v any, text func(w io.Writer)) error {
	c.progress.close()
	if !c.json {
		var b bytes.Buffer
		text(&b)
		_, err := io.WriteString(c.stdout, plainText(b.String()))
		return err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s\n", b)
	return err
}

func (c *commands) close() error {
	if c.progress != nil {
		c.progress.close()
	}
	if c.wire == nil {
		return nil
	}
	return c.wire.close()
}

// wantArgs checks the number of arguments. Flags must come before them, and
// who puts one after is told so.
func wantArgs(ctx *cli.Context, least, most int, what string) error {
	for _, a := range ctx.Args().Slice() {
		if strings.HasPrefix(a, "-") && a != "-" {
			return fault.New(fault.Usage, "put flags before the arguments", "%s comes after %s", a, ctx.Args().First())
		}
	}
	if n := ctx.NArg(); n < least || n > most {
		return fault.New(fault.Usage, "imgmut "+ctx.Command.Name+" --help", "imgmut %s wants %s", ctx.Command.Name, what)
	}
	return nil
}
