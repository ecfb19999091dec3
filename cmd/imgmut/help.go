package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

var helpCommand = &spec{
	name: "help", group: groupHelp, args: "[COMMAND]",
	summary:  "show help, also of a command",
	examples: []string{"imgmut help", "imgmut help apply"},
	run: func(_ context.Context, s *session, a args) (result, error) {
		if len(a.list) == 0 {
			return page(help(s.commands)), nil
		}
		at := slices.IndexFunc(s.commands, named(a.list[0]))
		if at < 0 {
			return nil, unknownCommand(a.list[0], s.commands)
		}
		return page(s.commands[at].help()), nil
	},
}

// help is what imgmut --help prints.
func help(commands []*spec) string {
	var b strings.Builder
	fmt.Fprintf(&b, "imgmut: %s\n\n   imgmut [FLAG…] COMMAND [FLAG…] [ARGUMENT…]\n\n%s\n", tagline, description)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, group := range groups {
		fmt.Fprintf(t, "\n%s\n", group)
		for _, c := range commands {
			if c.group == group {
				fmt.Fprintf(t, "   %s\t%s\n", c.name, c.summary)
			}
		}
	}
	t.Flush()
	writeFlags(&b, "\nFlags of all commands", slices.Concat(globals, builtin))
	writeStatuses(&b, statuses)
	return b.String()
}

// help is what --help prints of one command.
func (c *spec) help() string {
	var b strings.Builder
	usage := strings.TrimSpace("imgmut " + c.name + " [FLAG…] " + c.args)
	fmt.Fprintf(&b, "imgmut %s: %s\n\n   %s\n", c.name, c.summary, usage)
	if c.text != "" {
		fmt.Fprintf(&b, "\n%s\n", c.text)
	}
	if len(c.flags) > 0 {
		writeFlags(&b, "\nFlags, besides those of all commands (imgmut --help)", c.flags)
	}
	fmt.Fprintf(&b, "\nExamples\n   %s\n", strings.Join(c.examples, "\n   "))
	writeStatuses(&b, c.statuses())
	return b.String()
}

func writeFlags(w io.Writer, title string, list []flag) {
	fmt.Fprintln(w, title)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range list {
		name := strings.TrimSpace(dashed(f.name) + " " + f.value)
		if f.short != "" {
			name = dashed(f.short) + ", " + name
		}
		text := f.help
		if f.many {
			text += "; may be given more than once"
		}
		if f.def != "" {
			text += " (default " + f.def + ")"
		}
		if f.env != "" {
			text += " [$" + f.env + "]"
		}
		fmt.Fprintf(t, "   %s\t%s\n", name, text)
	}
	t.Flush()
}

func writeStatuses(w io.Writer, list []status) {
	fmt.Fprintln(w, "\nEXIT STATUS")
	for _, s := range list {
		fmt.Fprintf(w, "   %3d  %s\n", s.code, s.meaning)
	}
}
