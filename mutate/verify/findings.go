package verify

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/record"
)

// finding is one thing that a check tells of.
type finding struct {
	what string
	// key names it in the base and in all images that are made of it, so without
	// what an image has of its own; empty if that is what.
	key  string
	mend string
	note bool // worth telling, not wrong
}

// maxTold is how many findings of a check are told.
const maxTold = 10

// judged makes a check of findings, of which those that were in the base already
// are no fault of the image.
func judged(name string, version int, find func(context.Context, *disk.Image) ([]finding, error)) Check {
	return Check{Name: name, Version: version, find: find,
		Run: func(ctx context.Context, r Request) ([]record.Check, error) {
			found, err := find(ctx, r.Image)
			if err != nil {
				return nil, err
			}
			return []record.Check{checkOf(name, found, r.known())}, nil
		},
	}
}

// Finding is one thing that a check tells of a base.
type Finding struct {
	Check string `json:"check"`
	What  string `json:"what"`
	Mend  string `json:"mend,omitempty"`
	Note  bool   `json:"note,omitempty"` // worth telling, not wrong
	// Key names what is wrong in all images that are made of the base: it is what to
	// have as Known in the [Base] of a request about one.
	Key string `json:"-"`
}

// Findings gives all that is wrong with a base and that no recipe can be blamed for,
// and what is worth telling of it.
func Findings(ctx context.Context, i *disk.Image) ([]Finding, error) {
	var all []Finding
	for _, c := range Checks() {
		if c.find == nil {
			continue
		}
		found, err := c.find(ctx, i)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			all = append(all, Finding{Check: c.Name, What: f.what, Mend: f.mend, Note: f.note, Key: f.in(c.Name)})
		}
	}
	return all, nil
}

// Judges names the checks that [Findings] and [Remember] ask, with their versions. What
// others found in a base is to be found anew.
func Judges() string {
	var names []string
	for _, c := range Checks() {
		if c.find != nil || c.Name == closureCheck.Name {
			names = append(names, fmt.Sprintf("%s %d", c.Name, c.Version))
		}
	}
	return strings.Join(names, ", ")
}

// in names a finding among those of all checks.
func (f finding) in(check string) string { return check + ": " + cmp.Or(f.key, f.what) }

// checkOf sums findings up.
func checkOf(name string, found []finding, known []string) record.Check {
	c := record.Check{Name: name, OK: true}
	var wrong []string
	for _, f := range found {
		switch {
		case f.note:
			c.Notes = append(c.Notes, f.what)
		case slices.Contains(known, f.in(name)):
			c.Notes = append(c.Notes, f.what+" (as in the base)")
		default:
			wrong = append(wrong, f.what)
			c.OK, c.Mend = false, cmp.Or(c.Mend, f.mend)
		}
	}
	c.Detail, c.Notes = strings.Join(few(wrong), "; "), few(c.Notes)
	return c
}

// few cuts a list that is too long to be read.
func few(texts []string) []string {
	if n := len(texts) - maxTold; n > 0 {
		return append(texts[:maxTold:maxTold], fmt.Sprintf("and %d more", n))
	}
	return texts
}
