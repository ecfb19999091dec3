package fork

import (
	"fmt"
	"strings"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
	"github.com/imgmut/imgmut/mutate/tool"
)

// Wanted is what a recipe asks of an image's identity, beside the GUIDs that every
// image has anew.
type Wanted struct {
	Filesystems bool   // new UUIDs of filesystems
	Labels      string // template of their labels, of {name} and {label}; empty leaves them
	KeepTypes   bool   // the types of partitions stay
}

// Refusal is why something that a recipe asks for cannot be had.
type Refusal struct {
	Field string // of identity, or of disk
	Why   string
	Mend  string // what to do in its place, or ""
}

func (r *Refusal) Error() string { return r.Field + ": " + r.Why }

// Check finds what cannot be had of an image with that name and that base. An error
// is about the machine: it lacks a program.
func (w Wanted) Check(l *disk.Layout, name string) ([]Refusal, error) {
	var refused []Refusal
	uuids, labels := map[string]disk.Volume{}, map[string]disk.Volume{}
	for _, v := range l.Volumes {
		c, able := changers[v.FS]
		if uuid := strings.ToLower(v.UUID); w.Filesystems && uuid != "" {
			if other, ok := uuids[uuid]; ok {
				refused = append(refused, Refusal{"filesystems",
					fmt.Sprintf("%s and %s both have the filesystem UUID %s, so what names it is ambiguous", other, v, v.UUID), ""})
			}
			uuids[uuid] = v
			if !able {
				refused = append(refused, Refusal{"filesystems",
					fmt.Sprintf("%s has %s, of which nothing changes the UUID", v, v.FS), ""})
			} else if err := tool.Need(c.uuid.program(), "give "+v.String()+" a UUID of its own"); err != nil {
				return nil, err
			}
		}
		if w.Labels != "" && v.Label != "" {
			label := w.label(v, name)
			if why := labelFault(v, label); why != "" {
				refused = append(refused, Refusal{"labels", why, ""})
			} else if err := tool.Need(c.label.program(), "give "+v.String()+" its label"); err != nil {
				return nil, err
			}
			if other, ok := labels[label]; ok {
				refused = append(refused, Refusal{"labels",
					fmt.Sprintf("%s and %s would both have the label %s", other, v, label), ""})
			}
			labels[label] = v
		}
	}
	return refused, nil
}

// label is that of a volume in the image of that name. FAT knows capitals alone.
func (w Wanted) label(v disk.Volume, name string) string {
	label := strings.NewReplacer("{name}", name, "{label}", v.Label).Replace(w.Labels)
	if v.FS == "vfat" {
		label = strings.ToUpper(label)
	}
	return label
}

var (
	// plainLabel is one that no file writes in more than one way.
	plainLabel = lazyregexp.New(`^[A-Za-z0-9._-]+$`)
	fatLabel   = lazyregexp.New(`^[A-Z0-9_-]+$`)
)

// labelFault says why a volume cannot get a label, "" if it can.
func labelFault(v disk.Volume, label string) string {
	c, ok := changers[v.FS]
	switch {
	case !ok:
		return fmt.Sprintf("%s has %s, of which nothing changes the label", v, v.FS)
	case !plainLabel().MatchString(v.Label):
		return fmt.Sprintf("%s has the label %q, and only letters, digits and . _ - can be followed in all files", v, v.Label)
	case len(label) > c.longest:
		return fmt.Sprintf("%s would have the label %s, and %s has room for %d bytes", v, label, v.FS, c.longest)
	case v.FS == "vfat" && !fatLabel().MatchString(label):
		return fmt.Sprintf("%s would have the label %s, and a FAT volume's is of letters, digits, _ and -", v, label)
	}
	return ""
}
