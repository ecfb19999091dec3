package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

var verifyCommand = &spec{
	name: "verify", group: groupImages, args: "NAME|FILE",
	summary: "judge an image: filesystems, references, boot, assertions",
	text: `Judges an image or base of the store, or any raw image file, without changing it.
For an image of the store that includes what its recipe asserts and whether its
bytes are those that were published, and the verdict is recorded.`,
	store:    makesStore,
	faults:   []fault.Class{fault.Host, fault.Verdict, fault.Image, fault.NotFound},
	examples: []string{"imgmut verify web", "imgmut verify debian-12.raw"},
	run: func(ctx context.Context, s *session, a args) (result, error) {
		e, err := s.open(ctx)
		if err != nil {
			return nil, err
		}
		name := imageNames(e, a.list)[0]
		v, err := e.VerifyImage(ctx, name)
		if errors.Is(err, store.ErrNotFound) {
			v, err = verifyFile(ctx, e, name)
		}
		if err != nil {
			return nil, err
		}
		if !v.OK {
			err = &mutate.VerifyError{Name: name, Failed: v.Failed()}
		}
		return verdict{v}, err
	},
}

// verifyFile judges a base, or a file that is in no store.
func verifyFile(ctx context.Context, e *mutate.Engine, name string) (*record.Verdict, error) {
	file := name
	if base, err := e.Catalog().FindBase(name); err == nil {
		file = e.Catalog().BaseFile(base.Digest)
	} else if _, err := os.Stat(name); err != nil {
		return nil, notThere(name)
	}
	return e.Verify(ctx, file)
}

type verdict struct{ *record.Verdict }

func (v verdict) Text(w io.Writer) {
	for _, check := range v.Checks {
		word := "ok"
		switch {
		case !check.OK:
			word = "FAILED: " + check.Detail
		case check.Detail != "":
			word += ", but " + check.Detail
		}
		fmt.Fprintf(w, "%s: %s\n", check.Name, word)
		for _, text := range check.Notes {
			fmt.Fprintf(w, "note: %s\n", text)
		}
	}
}
