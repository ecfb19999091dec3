package main

import (
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/recipes"
)

// builtin flags come from the library that reads the command line.
var builtin = []flag{
	{name: "help", short: "h", help: "show help, also of a command"},
	{name: "version", short: "v", help: "print the version"},
}

// arranged is a command line in the order of its parser.
type arranged struct {
	global  []string // flags, with their values
	command string
	own     []string // flags of the command
	args    []string
}

// arrange puts a command line into the order of its parser: global flags, the
// command, its flags, "--", its arguments. Users may give flags anywhere before
// a "--" of their own. It says what is unknown.
func arrange(line []string) ([]string, error) {
	if len(line) == 0 {
		return nil, nil
	}
	c, err := findCommand(line[1:])
	if err != nil {
		return nil, err
	}
	var a arranged
	for words := line[1:]; len(words) > 0; {
		var err error
		if words, err = a.next(c, words); err != nil {
			return nil, err
		}
	}
	out := append([]string{line[0]}, a.global...)
	if a.command == "" {
		return out, nil
	}
	return slices.Concat(out, []string{a.command}, a.own, []string{"--"}, a.args), nil
}

// next takes the next word of the line, with its value if it is a flag that has
// one, and gives what is left.
func (a *arranged) next(c *spec, words []string) ([]string, error) {
	word, rest := words[0], words[1:]
	if word == "--" {
		if a.command == "" && len(rest) > 0 {
			a.command, rest = rest[0], rest[1:]
		}
		a.args = append(a.args, rest...)
		return nil, nil
	}
	if !isFlag(word) {
		if a.command == "" {
			a.command = word
		} else {
			a.args = append(a.args, word)
		}
		return rest, nil
	}
	name, valued := flagName(word)
	to, f := a.flag(c, name)
	if f == nil {
		return nil, unknownFlag(name, c)
	}
	*to = append(*to, word)
	if f.value == "" || valued {
		return rest, nil
	}
	if len(rest) == 0 {
		return nil, fault.New(fault.Usage, "", "%s wants a value: %s", word, f.value)
	}
	*to = append(*to, rest[0])
	return rest[1:], nil
}

// flag finds a flag that may stand in a line of the command, and where it goes.
func (a *arranged) flag(c *spec, name string) (to *[]string, f *flag) {
	if f = findFlag(name, slices.Concat(globals, builtin[1:])); f != nil {
		return &a.global, f
	}
	if f = findFlag(name, own(c)); c != nil {
		return &a.own, f
	}
	return &a.global, f
}

// unfinished is the flag that words are, if its value is still to come.
func (a *arranged) unfinished(c *spec, words []string) *flag {
	if len(words) != 1 || !isFlag(words[0]) {
		return nil
	}
	name, valued := flagName(words[0])
	if _, f := a.flag(c, name); f != nil && f.value != "" && !valued {
		return f
	}
	return nil
}

// flagName is the name in a word that is a flag, and whether its value is there as well.
func flagName(word string) (name string, valued bool) {
	name, _, valued = strings.Cut(strings.TrimLeft(word, "-"), "=")
	return name, valued
}

// isFlag tells flags from arguments; "-" alone is what other programs call
// standard input or output.
func isFlag(word string) bool { return strings.HasPrefix(word, "-") && word != "-" }

// findCommand finds the command in a line whose flags may be those of any.
func findCommand(words []string) (*spec, error) {
	var all []flag
	for _, c := range commands {
		all = append(all, c.flags...)
	}
	all = slices.Concat(all, globals, builtin)
	for i := 0; i < len(words); i++ {
		if words[i] == "--" && i+1 < len(words) {
			i++
		} else if isFlag(words[i]) {
			name, valued := flagName(words[i])
			if f := findFlag(name, all); f != nil && f.value != "" && !valued {
				i++
			}
			continue
		}
		if at := slices.IndexFunc(commands, named(words[i])); at >= 0 {
			return commands[at], nil
		}
		return nil, unknownCommand(words[i], commands)
	}
	return nil, nil
}

func findFlag(name string, list []flag) *flag {
	at := slices.IndexFunc(list, func(f flag) bool { return name != "" && (f.name == name || f.short == name) })
	if at < 0 {
		return nil
	}
	return &list[at]
}

// own are the flags of a command, or of the program where there is none.
func own(c *spec) []flag {
	if c == nil {
		return builtin
	}
	return slices.Concat(c.flags, builtin[:1])
}

func named(name string) func(*spec) bool { return func(c *spec) bool { return c.name == name } }

// unknownCommand says what was probably meant.
func unknownCommand(name string, commands []*spec) error {
	var known []string
	for _, c := range commands {
		known = append(known, c.name)
	}
	mend := "imgmut --help lists the commands"
	if nearest := recipes.Nearest(name, known); nearest != "" {
		mend = "did you mean " + nearest + "?"
	} else if strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml") {
		mend = "imgmut apply " + name
	}
	return fault.New(fault.Usage, mend, "no such command: %s", name)
}

// unknownFlag says what is close to a flag that is none, or whose flag it is.
func unknownFlag(name string, c *spec) error {
	what := "imgmut"
	if c != nil {
		what += " " + c.name
	}
	var known []string
	for _, f := range slices.Concat(globals, own(c)) {
		known = append(known, f.name)
	}
	mend := what + " --help lists the flags"
	for _, other := range commands {
		if findFlag(name, other.flags) != nil {
			mend = "it is a flag of imgmut " + other.name
		}
	}
	if nearest := recipes.Nearest(name, known); nearest != "" {
		mend = "did you mean --" + nearest + "?"
	}
	return fault.New(fault.Usage, mend, "no such flag of %s: %s", what, dashed(name))
}

// dashed is a flag as it is written.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}
