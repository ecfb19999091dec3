package main

import (
	"context"
	"errors"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/imgmut/imgmut/mutate/fault"
)

// This file is all that knows of the library which reads the command line.

// app is the program as that library sees it, made of the list of commands.
func (s *session) app() *cli.App {
	cli.VersionPrinter = func(*cli.Context) { currentRelease().Text(s.stdout) }
	app := &cli.App{
		Name:                      "imgmut",
		Usage:                     tagline,
		CustomAppHelpTemplate:     help(s.commands),
		Version:                   version(),
		HideHelpCommand:           true, // ours does it
		DisableSliceFlagSeparator: true, // --set a=1,2 is one setting
		Writer:                    s.stdout,
		ErrWriter:                 s.stderr,
		ExitErrHandler:            func(*cli.Context, error) {}, // report does it
		OnUsageError:              asUsage,
		Flags:                     append(parserFlags(globals), cli.HelpFlag),
	}
	for _, c := range s.commands {
		app.Commands = append(app.Commands, s.parserCommand(c))
	}
	return app
}

// asUsage is what the library finds wrong, such as --json=perhaps.
func asUsage(_ *cli.Context, err error, _ bool) error { return fault.New(fault.Usage, "", "%w", err) }

func (s *session) parserCommand(c *spec) *cli.Command {
	return &cli.Command{
		Name: c.name, Usage: c.summary, CustomHelpTemplate: c.help(),
		Flags:           parserFlags(c.flags),
		HideHelpCommand: true, // "help" may be the name of an image
		OnUsageError:    asUsage,
		Action: func(ctx *cli.Context) error {
			return s.run(ctx.Context, c, args{list: ctx.Args().Slice(), flags: ctx})
		},
	}
}

func parserFlags(list []flag) []cli.Flag {
	var all []cli.Flag
	for _, f := range list {
		var aliases, env []string
		if f.short != "" {
			aliases = []string{f.short}
		}
		if f.env != "" {
			env = []string{f.env}
		}
		switch {
		case f.value == "":
			all = append(all, &cli.BoolFlag{Name: f.name, Aliases: aliases, EnvVars: env, Usage: f.help})
		case f.many:
			all = append(all, &cli.StringSliceFlag{Name: f.name, Aliases: aliases, EnvVars: env, Usage: f.help})
		default:
			all = append(all, &cli.StringFlag{Name: f.name, Aliases: aliases, EnvVars: env, Usage: f.help, Value: f.def})
		}
	}
	return all
}

// parse hands the command line to the library, which wants it in its own order.
func (s *session) parse(ctx context.Context, line []string) error {
	s.json = slices.Contains(line, "--json") // also for what is wrong with the line itself
	line, err := arrange(line)
	if err != nil {
		return err
	}
	err = s.app().RunContext(ctx, line)
	// What the library itself ends with is about the command line, as help for a
	// command that there is not.
	if exit := cli.ExitCoder(nil); errors.As(err, &exit) {
		err = fault.New(fault.Usage, "imgmut --help lists the commands", "%w", err)
	}
	return err
}
