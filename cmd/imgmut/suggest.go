package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/printable"
	"github.com/imgmut/imgmut/mutate/store"
)

// suggestArg is the word by which a shell asks what could come next: behind it are the
// words of a line, up to the one at the cursor, which may be empty. The answer is a
// line each, with what it means behind a tab. The exit status is 1 if files would do as
// well. It is no command: nobody has reason to type it.
const suggestArg = "suggest"

// suggestion is what could come next.
type suggestion struct{ word, about string }

// suggest answers a shell. Where anything is wrong there is nothing to suggest.
func (s *session) suggest(ctx context.Context, words []string) int {
	list, files := s.suggestions(ctx, words)
	for _, l := range list {
		fmt.Fprintf(s.stdout, "%s\t%s\n", l.word, printable.Line(l.about))
	}
	if files {
		return 1
	}
	return exitDone
}

func (s *session) suggestions(ctx context.Context, words []string) (list []suggestion, files bool) {
	if len(words) == 0 {
		return nil, false
	}
	before, at := words[:len(words)-1], words[len(words)-1]
	before = slices.DeleteFunc(slices.Clone(before), func(w string) bool { return w == "=" }) // to bash that is a word
	if flag, value, joined := strings.Cut(at, "="); joined && isFlag(flag) {
		list, files = s.next(ctx, append(before, flag), value)
		for i := range list {
			list[i].word = flag + "=" + list[i].word
		}
		return list, files
	}
	return s.next(ctx, before, at)
}

// next is what could stand behind words that are complete, where there is the beginning
// of another.
func (s *session) next(ctx context.Context, before []string, at string) (list []suggestion, files bool) {
	c, err := findCommand(before)
	if err != nil {
		return nil, false
	}
	var a arranged
	for rest := before; len(rest) > 0; {
		if f := a.unfinished(c, rest); f != nil {
			return s.choices(ctx, f.value, a.global)
		}
		if rest, err = a.next(c, rest); err != nil {
			return nil, false
		}
	}
	switch {
	case strings.HasPrefix(at, "-") && !slices.Contains(before, "--"):
		for _, f := range slices.Concat(globals, own(c)) {
			list = append(list, suggestion{"--" + f.name, f.help})
		}
		return list, false
	case c == nil:
		return s.choices(ctx, "COMMAND", nil)
	}
	return s.choices(ctx, c.argument(len(a.args)), a.global)
}

// choices are what can stand where help has such words as NAME|FILE or bash|zsh|fish,
// and whether files can.
func (s *session) choices(ctx context.Context, words string, global []string) (list []suggestion, files bool) {
	for word := range strings.SplitSeq(strings.Trim(words, "[]…"), "|") {
		switch {
		case word == "NAME":
			list = append(list, s.names(ctx, global)...)
		case word == "COMMAND":
			for _, c := range s.commands {
				list = append(list, suggestion{c.name, c.summary})
			}
		case word == "FILE" || word == "DIR" || word == "RECIPE":
			files = true
		case word != "" && word == strings.ToLower(word):
			list = append(list, suggestion{word: word})
		}
	}
	return list, files
}

// names are those of the images and bases in the store that the flags of a line say.
func (s *session) names(ctx context.Context, global []string) (list []suggestion) {
	s.dir = cmp.Or(os.Getenv("IMGMUT_STORE"), findFlag("store", globals).def)
	for i, word := range global {
		if value, ok := strings.CutPrefix(word, "--store="); ok {
			s.dir = value
		} else if word == "--store" {
			s.dir = global[i+1]
		}
	}
	if !store.Exists(s.dir) {
		return nil
	}
	s.progress, s.log = quiet{}, slog.New(slog.DiscardHandler)
	s.wire = &wire{log: s.log}
	e, err := s.open(ctx)
	if err != nil {
		return nil
	}
	all, err := entries(e)
	if err != nil {
		return nil
	}
	for _, l := range all {
		for _, name := range append(l.Names, l.Name) {
			list = append(list, suggestion{name, l.Type})
		}
	}
	slices.SortFunc(list, func(a, b suggestion) int { return strings.Compare(a.word, b.word) })
	return slices.Compact(list) // a base with several names has one of them twice
}
