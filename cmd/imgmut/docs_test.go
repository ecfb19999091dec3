package main

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/step"
	"github.com/imgmut/imgmut/recipes"
)

// TestDocumentedRecipes: every recipe that people are shown is one.
func TestDocumentedRecipes(t *testing.T) {
	shown := map[string]string{}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, block := range strings.Split(string(readme), "```yaml\n")[1:] {
		text, _, _ := strings.Cut(block, "```")
		shown["README.md block "+string(rune('1'+i))] = text
	}
	examples, err := fs.Glob(recipes.Examples(), "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range examples {
		text, err := fs.ReadFile(recipes.Examples(), name)
		if err != nil {
			t.Fatal(err)
		}
		shown[name] = string(text)
	}
	for _, k := range step.Kinds() {
		shown["example of "+k.Name] = "version: 1\nname: x\nbase: x\nsteps:" + k.Example
		if !strings.Contains(string(readme), "| `"+k.Name+"` |") {
			t.Errorf("README.md does not list the step kind %s", k.Name)
		}
	}
	if len(shown) < 8 {
		t.Errorf("only %d recipes are shown", len(shown))
	}
	for name, text := range shown {
		r, err := recipes.Parse(name, []byte(text))
		if err == nil {
			err = mutate.Check(r)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDocumentedStatuses: help and README list the exit statuses that there are.
func TestDocumentedStatuses(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{"README.md": string(readme), "the help": description} {
		text = strings.ToLower(strings.Join(strings.Fields(text), " "))
		for status, want := range map[int]string{exitDone: "done", exitUnexpected: "unexpected", exitUsage: "wrong use", exitRecipe: "recipe invalid", exitHost: "the host lacks",
			exitStep: "a step failed", exitVerify: "the image is not what it should be", exitInvalid: "a base or image is invalid", exitNotFound: "not found", exitInterrupted: "interrupted"} {
			if !strings.Contains(text, fmt.Sprintf("%d %s", status, want)) {
				t.Errorf("%s does not say %d %s", where, status, want)
			}
		}
	}
}
