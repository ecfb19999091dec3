package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

var inspectCommand = &spec{
	name: "inspect", group: groupImages, args: "NAME",
	summary:  "print all that is known of an image or base, as JSON",
	store:    haveStore,
	faults:   []fault.Class{fault.Host, fault.NotFound},
	examples: []string{"imgmut inspect web"},
	run: func(ctx context.Context, s *session, a args) (result, error) {
		e, err := s.open(ctx)
		if err != nil {
			return nil, err
		}
		var r inspected
		name := imageNames(e, a.list)[0]
		r.record, err = e.Catalog().FindImage(name)
		if errors.Is(err, store.ErrNotFound) {
			var b *record.Base
			if b, err = e.Catalog().FindBase(name); err == nil {
				r.record = forPeople(b)
			}
		}
		if errors.Is(err, store.ErrNotFound) {
			err = fault.New(fault.NotFound, "imgmut ls lists them", "image or base %s: %w", name, store.ErrNotFound)
		}
		if err != nil {
			return nil, err
		}
		return r, nil
	},
}

// inspected is the record of an image or base.
type inspected struct{ record any }

// MarshalJSON gives the record itself.
func (i inspected) MarshalJSON() ([]byte, error) { return json.Marshal(i.record) }

func (i inspected) Text(w io.Writer) {
	j := json.NewEncoder(w)
	j.SetIndent("", "  ")
	j.Encode(i.record)
}
