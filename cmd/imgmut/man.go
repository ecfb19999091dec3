package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
)

var manCommand = &spec{
	name: "man", group: groupHelp,
	summary:  "print the manual page",
	text:     "In the language of man(1), which shows it.",
	examples: []string{"imgmut man > imgmut.8", "man ./imgmut.8"},
	run: func(_ context.Context, s *session, _ args) (result, error) {
		return page(md2man.Render([]byte(manual(s.commands)))), nil
	},
}

// manual is the manual page, in Markdown, made of the commands.
func manual(commands []*spec) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n\n", args...) }
	say("imgmut 8 \"\" \"imgmut %s\"\n=====", version())
	say("# NAME")
	say("imgmut - %s", tagline)
	say("# SYNOPSIS")
	say("**imgmut** \\[*FLAG* …\\] *COMMAND* \\[*FLAG* …\\] \\[*ARGUMENT* …\\]")
	say("# DESCRIPTION")
	say("%s", verbatim(description))
	say("# FLAGS OF ALL COMMANDS")
	b.WriteString(manFlags(globals))
	say("# COMMANDS")
	for _, c := range commands {
		say("### imgmut %s %s", c.name, verbatim(c.args))
		say("%s.", strings.ToUpper(c.summary[:1])+verbatim(c.summary[1:]))
		say("%s", verbatim(c.text))
		b.WriteString(manFlags(c.flags))
		var codes []string
		for _, s := range c.statuses() {
			codes = append(codes, fmt.Sprint(s.code))
		}
		say("Ends with status %s.", strings.Join(codes, ", "))
		say("```\n%s\n```", strings.Join(c.examples, "\n"))
	}
	say("# EXIT STATUS")
	for _, s := range statuses {
		say("**%d**\n: %s", s.code, verbatim(s.meaning))
	}
	say("# JSON")
	say("With **\\--json** a result is one value on standard output, of **apply** one a line for each image; an error is " +
		"one on standard error. Sizes are in bytes, and what something *took* is in nanoseconds.")
	say("# ENVIRONMENT")
	for _, f := range globals {
		if f.env != "" {
			say("**%s**\n: in place of **\\--%s**", verbatim(f.env), f.name)
		}
	}
	for _, c := range commands {
		for _, f := range c.flags {
			if f.env != "" {
				say("**%s**\n: in place of **\\--%s** of %s", verbatim(f.env), f.name, c.name)
			}
		}
	}
	return b.String()
}

func manFlags(list []flag) string {
	var b strings.Builder
	for _, f := range list {
		b.WriteString("**" + verbatim(dashed(f.name)) + "**")
		if f.short != "" {
			b.WriteString(", **" + verbatim(dashed(f.short)) + "**")
		}
		if f.value != "" {
			b.WriteString(" *" + f.value + "*")
		}
		b.WriteString("\n: " + verbatim(f.help))
		if f.def != "" {
			b.WriteString(" (" + verbatim(f.def) + ")")
		}
		if f.many {
			b.WriteString("; may be given more than once")
		}
		b.WriteString("\n\n")
	}
	return b.String()
}

// verbatim keeps what is meant as it is from being markup.
func verbatim(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `_`, `\_`, `<`, `\<`, `[`, `\[`, "`", "\\`").Replace(s)
}
