package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/printable"
	"github.com/imgmut/imgmut/mutate/store"
)

// entry is a line of ls.
type entry struct {
	Type   string    `json:"type"` // base or image
	Name   string    `json:"name"`
	Names  []string  `json:"names,omitempty"` // of a base, if it has several
	Size   int64     `json:"size"`            // bytes
	Made   time.Time `json:"made"`
	Digest string    `json:"digest"`
	About  string    `json:"about"` // what it was made of
	Path   string    `json:"path"`
}

var lsCommand = &spec{
	name: "ls", group: groupImages,
	summary:  "list images and bases",
	store:    haveStore,
	faults:   []fault.Class{fault.Host, fault.NotFound},
	examples: []string{"imgmut ls", "imgmut ls --json"},
	run: func(ctx context.Context, s *session, _ args) (result, error) {
		e, err := s.open(ctx)
		if err != nil {
			return nil, err
		}
		list, err := entries(e)
		return listing(list), err
	},
}

type listing []entry

func (list listing) Text(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TYPE\tNAME\tSIZE\tMADE\tDIGEST\tABOUT")
	for _, l := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.12s\t%s\n", l.Type, cmp.Or(strings.Join(l.Names, ","), l.Name),
			printable.Size(l.Size), l.Made.Local().Format("2006-01-02 15:04"), l.Digest, l.About)
	}
	t.Flush()
}

func entries(e *mutate.Engine) ([]entry, error) {
	list := []entry{}
	bases, err := e.Catalog().Bases()
	if err != nil {
		return nil, err
	}
	for _, b := range bases {
		l := entry{Type: "base", Name: b.Digest[:12], Size: b.Size, Made: b.Imported, Digest: b.Digest,
			About: b.Layout.OS + " " + b.Layout.Arch + ", from " + b.Source, Path: e.Store.Path(store.Bases, b.Digest, "raw")}
		if len(b.Names) > 0 {
			l.Name = b.Names[0]
		}
		if len(b.Names) > 1 {
			l.Names = b.Names
		}
		list = append(list, l)
	}
	images, err := e.Catalog().Images()
	if err != nil {
		return nil, err
	}
	for _, i := range images {
		about := fmt.Sprintf("%d steps on %s", len(i.Keys)-1, cmp.Or(i.BaseName, fmt.Sprintf("%.12s", i.Base)))
		if len(i.Keys) == 2 {
			about = strings.Replace(about, "steps", "step", 1)
		}
		list = append(list, entry{Type: "image", Name: i.Name, Size: i.Size, Made: i.Made, Digest: i.Digest,
			About: about, Path: e.Store.Path(store.Images, i.Name, "raw")})
	}
	return list, nil
}
