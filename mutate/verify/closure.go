package verify

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/refs"
	"github.com/imgmut/imgmut/mutate/tool"
)

// Base is what is known of the base of an image.
type Base struct {
	Known []string // what was wrong with it: see [Findings]
	IDs   []string // the UUIDs of its partitions
	Clean []byte   // what [Remember] said of it
	// Filesystems and Labels are the UUIDs and labels of those of its filesystems of
	// which the image's have others.
	Filesystems, Labels []string
	File                *os.File // its bytes, nil if they are gone
	Told                []string // notes of an earlier verdict about the image, which count if the bytes are gone
}

// Closure is the name of the check that nothing names what only the base had.
const Closure = "closure"

var closureCheck = Check{Name: Closure, Version: 6, Run: closure}

// closure checks that nothing which is read at boot names a volume by what
// only the base had: see [refs.Search] for what counts. It says nothing of an
// image of which no base is known.
func closure(ctx context.Context, r Request) ([]record.Check, error) {
	if r.Base == nil {
		return nil, nil
	}
	if err := r.Image.FindRoles(); err != nil { // which other checks want as well
		return nil, err
	}
	started := time.Now()
	found, err := scan(ctx, r.Image, r.Base.search(r.Image.Layout), r.Base)
	if err != nil {
		return nil, err
	}
	return []record.Check{{
		Name: Closure, OK: len(found.leftovers) == 0, Detail: strings.Join(few(found.leftovers), "; "), Notes: few(found.unread),
		Took: time.Since(started),
	}}, nil
}

// search is for what the image does not have any more.
func (b *Base) search(l *disk.Layout) refs.Search {
	labels := slices.DeleteFunc(slices.Clone(b.Labels), func(label string) bool {
		return slices.ContainsFunc(l.Volumes, func(v disk.Volume) bool { return v.Label == label })
	})
	return refs.Search{Partitions: without(b.IDs, l.PartUUIDs()), Filesystems: without(b.Filesystems, l.UUIDs()),
		Labels: labels, Here: l.UUIDs()}
}

// clean are the files that need no second look. What is known of a base is of the
// UUIDs of its partitions alone.
func (b *Base) clean() refs.Known {
	if len(b.Filesystems)+len(b.Labels) > 0 {
		return nil
	}
	return refs.KnownFrom(b.Clean)
}

// without are those IDs that are not here.
func without(ids, here []string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return slices.Contains(here, strings.ToLower(id)) })
}

// Remembered is what is to be known of the files of a base when images are made of it.
type Remembered struct {
	Clean []byte // Clean of a later [Request]
	// Naming are some files that name its partitions, by the key of their tree: all, unless
	// they are many.
	Naming map[string][]string
	// InInitrds are those with a copy of a partition UUID that cannot be rewritten.
	InInitrds []string
}

// Remember looks into a base.
func Remember(ctx context.Context, i *disk.Image) (*Remembered, error) {
	found, err := scan(ctx, i, refs.Search{Partitions: i.Layout.PartUUIDs(), Here: i.Layout.UUIDs()}, &Base{File: i.File})
	if err != nil {
		return nil, err
	}
	clean, err := found.clean.MarshalBinary()
	return &Remembered{clean, found.naming, found.inInitrds}, err
}

// scanned is what was found in all volumes.
type scanned struct {
	leftovers, inInitrds, unread []string
	naming                       map[string][]string
	clean                        refs.Known
}

func scan(ctx context.Context, i *disk.Image, s refs.Search, base *Base) (all scanned, err error) {
	trees, unreadable, err := i.Trees()
	if err != nil {
		return all, err
	}
	for _, err := range unreadable {
		all.unread = append(all.unread, err.Error())
	}
	all.clean, all.naming = refs.Known{}, map[string][]string{}
	clean := base.clean()
	found, err := tool.Each(trees, func(t disk.Placed) (refs.Report, error) {
		named, err := i.NamedAtBoot(t)
		if err != nil {
			return refs.Report{}, err
		}
		return refs.Files{FS: t.Tree, FAT: t.Volume.FS == "vfat", Whole: t.ReadAtBoot(), Named: named,
			Tree: t.Key(), Clean: clean, Unmoved: i.Unmoved(ctx, base.File, t)}.Scan(ctx, s)
	})
	for n, r := range found {
		all.add(trees[n], r)
	}
	return all, err
}

// add tells what was found in a tree, in the words of the image.
func (s *scanned) add(t disk.Placed, r refs.Report) {
	at := t.At
	if at == "" {
		at = t.Volume.String() + ": /"
	}
	for _, l := range r.Found {
		s.naming[t.Key()] = append(s.naming[t.Key()], l.File)
		file := filepath.Join(at, l.File)
		named, mend := namedBy(l)
		why := fmt.Sprintf("%s %s", file, named)
		if l.Inside != "" {
			why = fmt.Sprintf("%s (%s in it) %s: %s, and have a step make that file anew (update-initramfs -u, dracut -f)",
				file, l.Inside, named, mend)
			s.inInitrds = append(s.inInitrds, file)
		}
		s.leftovers = append(s.leftovers, why)
	}
	for _, u := range r.Unread {
		s.unread = append(s.unread, fmt.Sprintf("not looked into: %s: %s", filepath.Join(at, u.File, u.Inside), u.Why))
	}
	maps.Copy(s.clean, r.Clean)
}

// namedBy says what a file names that is gone, and what else it could name.
func namedBy(l refs.Leftover) (named, mend string) {
	switch l.Tag {
	case "UUID":
		return fmt.Sprintf("names the base's filesystem UUID %s, which no filesystem has any more", l.ID),
			"name the volume by what it keeps, or leave out identity.filesystems"
	case "LABEL":
		return fmt.Sprintf("names the base's label %s, which no filesystem has any more", l.ID),
			"name the volume by what it keeps, or leave out identity.labels"
	}
	return fmt.Sprintf("names the base's partition UUID %s, which no partition has any more", l.ID),
		"name the volume by its filesystem's UUID"
}
