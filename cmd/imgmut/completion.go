package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"

	"github.com/imgmut/imgmut/mutate/fault"
)

//go:embed completion.bash
var bashCompletion string

//go:embed completion.zsh
var zshCompletion string

//go:embed completion.fish
var fishCompletion string

var completionCommand = &spec{
	name: "completion", group: groupHelp, args: "bash|zsh|fish",
	summary: "print what makes a shell complete imgmut's words",
	text: `For bash, put the output into /etc/bash_completion.d/imgmut; for zsh into a file
_imgmut of a directory in $fpath; for fish into ~/.config/fish/completions/imgmut.fish.`,
	examples: []string{"imgmut completion bash > imgmut.bash", ". imgmut.bash"},
	run: func(_ context.Context, _ *session, a args) (result, error) {
		switch a.list[0] {
		case "bash":
			return page(bashCompletion), nil
		case "zsh":
			return page(zshCompletion), nil
		case "fish":
			return page(fishCompletion), nil
		}
		return nil, fault.New(fault.Usage, "", "no completion for %s: want bash, zsh or fish", a.list[0])
	},
}

// page is a text that is a result as a whole.
type page string

func (p page) Text(w io.Writer) { fmt.Fprint(w, string(p)) }
