package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"text/tabwriter"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/printable"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// look is imgmut doctor of an image.
func (s *session) look(ctx context.Context, name string) (result, error) {
	file, err := s.imageFile(ctx, name)
	if err != nil {
		return nil, err
	}
	p, err := mutate.Look(ctx, file, func(line string) { s.event(mutate.Event{Type: mutate.EventNote, Text: line}) })
	if p == nil {
		return nil, err
	}
	if err == nil {
		return picture{p}, nil
	}
	// The picture says why, so the error need not.
	p.Refused.Hint = hint(err)
	if p.Refused.Machine {
		return picture{p}, fault.New(fault.Of(err), "", "%s cannot be looked into", p.File)
	}
	return picture{p}, fault.New(fault.Of(err), "", "%s would be refused", p.File)
}

// imageFile finds the file of an image, of a base, or that is in no store. It makes no
// store.
func (s *session) imageFile(ctx context.Context, name string) (string, error) {
	if store.Exists(s.dir) && !strings.Contains(name, "/") {
		e, err := s.open(ctx)
		if err != nil {
			return "", err
		}
		c := e.Catalog()
		if _, err := c.FindImage(name); !errors.Is(err, store.ErrNotFound) {
			return c.ImageFile(name), err
		}
		if base, err := c.FindBase(name); !errors.Is(err, store.ErrNotFound) {
			if err != nil {
				return "", err
			}
			return c.BaseFile(base.Digest), nil
		}
	}
	if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) {
		return "", notThere(name)
	}
	return name, nil
}

// notThere says that there is no such image or base, nor a file of that name.
func notThere(name string) error {
	if recipes.CheckName(name) != nil {
		return fault.New(fault.NotFound, "", "%s: no such file", name)
	}
	return fault.New(fault.NotFound, "imgmut ls lists images and bases",
		"image, base or file %s: %w", name, store.ErrNotFound)
}

type picture struct{ *mutate.Picture }

func (p picture) Text(w io.Writer) {
	p.head(w)
	if p.Layout != nil {
		p.volumes(w)
		p.mounts(w)
		p.deployments(w)
	}
	p.starts(w)
	p.remarks(w)
}

// head says what the image is, in a line.
func (p picture) head(w io.Writer) {
	words := []string{printable.Size(p.Size)}
	if l := p.Layout; l != nil {
		words = append(words, fmt.Sprintf("%s, sectors of %d bytes", l.Table, cmp.Or(l.SectorSize, 512)))
		if l.OS != "" {
			words = append(words, l.OS+" "+l.Arch)
		}
	}
	fmt.Fprintf(w, "%s: %s\n", p.File, strings.Join(words, ", "))
}

// columns prints rows in columns, after an empty line. Cells that are empty are a dash.
func columns(w io.Writer, rows [][]string) {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for n, cell := range row {
			if cell == "" {
				row[n] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	t.Flush()
}

func (p picture) volumes(w io.Writer) {
	rows := [][]string{{"SLOT", "SIZE", "FILESYSTEM", "ROLE", "TYPE", "LABEL", "UUID"}}
	for _, v := range p.Layout.Volumes {
		slot := ""
		if v.Slot != 0 {
			slot = fmt.Sprint(v.Slot)
		}
		rows = append(rows, []string{slot, printable.Size(v.Size), v.FS, string(v.Role), v.TypeWords(), cmp.Or(v.Label, v.PartLabel), v.UUID})
	}
	columns(w, rows)
}

func (p picture) mounts(w io.Writer) {
	if len(p.Layout.Mounts) == 0 {
		return
	}
	rows := [][]string{{"MOUNTED ON", "WHAT", "OPTIONS", "BY"}}
	for _, m := range p.Layout.Mounts {
		what := m.Cover
		switch v, ok := p.Layout.Slot(m.Slot); {
		case m.Bind != "":
			what = "a bind of " + m.Bind
		case m.OfVolume() && ok:
			what = v.String()
			if m.Sub != "" {
				what += ", " + path.Join("/", m.Sub)
			}
		}
		if m.ReadOnly {
			what += ", read-only"
		}
		if m.ByHand {
			what += ", by hand"
		}
		rows = append(rows, []string{m.Mountpoint, what, strings.Join(m.Options, ","), m.From})
	}
	columns(w, rows)
}

// deployments are the systems that a volume of ostree holds.
func (p picture) deployments(w io.Writer) {
	if len(p.Layout.Deployments) == 0 {
		return
	}
	rows := [][]string{{"DEPLOYMENT", "STATE ROOT", "COMMIT", "SYSTEM", "FROM", "BY"}}
	for _, d := range p.Layout.Deployments {
		var is []string
		for _, word := range []struct {
			holds bool
			word  string
		}{
			{d.Default, "default"}, {d.Rollback, "rollback"}, {d.Pinned, "pinned"}, {d.Composefs, "composefs"}, {d.Entry == "", "not started"},
		} {
			if word.holds {
				is = append(is, word.word)
			}
		}
		rows = append(rows, []string{strings.Join(is, ", "), d.OS, fmt.Sprintf("%.12s.%d", d.Commit, d.Serial), d.Name,
			cmp.Or(d.Image, d.Refspec), d.Entry})
	}
	columns(w, rows)
}

func (p picture) starts(w io.Writer) {
	if len(p.Boot) == 0 {
		return
	}
	rows := [][]string{{"BOOTS", "LOADER", "VERSION", "KERNEL", "INITRDS", "BY"}}
	for _, s := range p.Boot {
		kernel := s.Kernel
		if s.Ostree != "" {
			kernel = "ostree " + s.Ostree
		}
		rows = append(rows, []string{map[bool]string{true: "default"}[s.Default], s.Loader, s.Version, kernel,
			strings.Join(s.Initrds, ","), s.File})
	}
	columns(w, rows)
	if p.CommandLine != "" {
		fmt.Fprintf(w, "\ncommand line: %s\n", p.CommandLine)
	}
}

// remarks are what there is to say of all that.
func (p picture) remarks(w io.Writer) {
	hint := func(mend string) {
		if mend != "" {
			fmt.Fprintln(w, "  hint:", mend)
		}
	}
	fmt.Fprintln(w)
	for _, slot := range p.Unreplayed {
		v, _ := p.Layout.Slot(slot)
		fmt.Fprintf(w, "journal: that of %s (%s) is not replayed: its files are shown as they were before the last changes\n", v, v.FS)
	}
	if p.Enlarged != "" {
		fmt.Fprintln(w, "note:", p.Enlarged)
	}
	for _, m := range p.Hidden {
		fmt.Fprintf(w, "hidden: nothing of the image is seen below %s at its start, which then is %s (%s)\n", m.Mountpoint, m.Cover, m.From)
	}
	for _, f := range p.Findings {
		fmt.Fprintf(w, "%s: %s: %s\n", map[bool]string{true: "note", false: "wrong"}[f.Note], f.Check, f.What)
		hint(f.Mend)
	}
	if p.Refused == nil {
		fmt.Fprintln(w, "imgmut would import it")
		return
	}
	word := "refused:"
	if p.Refused.Machine {
		word = "cannot be looked into:"
	}
	fmt.Fprintln(w, word, p.Refused.Error)
	hint(p.Refused.Hint)
}
