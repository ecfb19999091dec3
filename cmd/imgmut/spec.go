package main

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/fault"
)

// spec is all there is to say of a command. Help, man page, completion, and the
// order in which flags may be given are made of it.
type spec struct {
	name    string
	group   string
	args    string // what it takes, as "FILE [NAME]" or "a|b"; "NAME…" is one or more
	summary string // in a line
	text    string // in as many as it needs, wrapped for a terminal
	flags   []flag
	store   storeUse
	// faults are what it can end with, apart from what every command can: wrong
	// use and being interrupted.
	faults   []fault.Class
	examples []string // of a shell
	run      func(ctx context.Context, s *session, a args) (result, error)
}

// storeUse says what a command wants of the store.
type storeUse int

const (
	noStore    storeUse = iota
	haveStore           // it has no use for a store that is not there yet, and must not make one
	makesStore          // it makes one that is not there
)

// flag is an option of a command, or of all.
type flag struct {
	name, short string
	value       string // a word for what it takes, or what can be chosen: a|b; a switch takes nothing
	many        bool   // it may be given more than once
	def, env    string
	help        string
}

// args is what the user gave to a command.
type args struct {
	list  []string
	flags interface {
		Bool(name string) bool
		String(name string) string
		StringSlice(name string) []string
		IsSet(name string) bool
	}
}

// result is what a command has to say on standard output: its text, or itself
// as JSON.
type result interface{ Text(w io.Writer) }

// arity is how many arguments the command takes.
func (c *spec) arity() (least, most int) {
	for word := range strings.FieldsSeq(c.args) {
		switch {
		case strings.HasPrefix(word, "["):
			most++
		case strings.HasSuffix(word, "…"):
			least, most = least+1, most+1000
		default:
			least, most = least+1, most+1
		}
	}
	return least, most
}

// argument is the word in args for the argument of that number, from 0; "" if it takes
// none there.
func (c *spec) argument(n int) string {
	words := strings.Fields(c.args)
	if last := len(words) - 1; n > last && last >= 0 && strings.HasSuffix(words[last], "…") {
		n = last
	}
	if n >= len(words) {
		return ""
	}
	return words[n]
}

// check refuses a wrong number of arguments.
func (c *spec) check(list []string) error {
	least, most := c.arity()
	if n := len(list); n >= least && n <= most {
		return nil
	}
	want := c.args
	if want == "" {
		want = "no argument"
	}
	return fault.New(fault.Usage, "imgmut "+c.name+" --help", "imgmut %s wants %s", c.name, want)
}

// statuses are the exit statuses that the command can end with.
func (c *spec) statuses() []status {
	var all []status
	for _, s := range statuses {
		if s.everywhere || slices.Contains(c.faults, s.class) {
			all = append(all, s)
		}
	}
	return all
}
