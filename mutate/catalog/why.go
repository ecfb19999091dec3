package catalog

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/imgmut/imgmut/mutate/record"
)

// Wanted is the chain of an image that is to be made.
type Wanted struct {
	Image string // its name
	Base  string // name of its base
	// Chain is what the layers are made of, prepare first. The parent of prepare
	// is the base's digest. Ground is how many of them are not of steps, 0 for 1.
	Chain  []*record.Material
	Ground int
}

// Why tells what keeps layer i of the chain from being there, by the chain that
// the image of that name has now: what its user changed since. Layers of other
// images explain nothing, so all of an image that was never made is "new".
func (c Catalog) Why(w Wanted, i int) (string, error) {
	quiet := Catalog{c.Store, func(string) {}} // of records that cannot be read, finding layers has told
	image, err := quiet.FindImage(w.Image)
	if err != nil || len(image.Keys) == 0 {
		return "new", nil
	}
	if digest := string(w.Chain[0].Parent); digest != image.Base {
		if name := cmp.Or(image.BaseName, w.Base); name != w.Base {
			return fmt.Sprintf("base %s %.12s → %s %.12s", name, image.Base, w.Base, digest), nil
		}
		return fmt.Sprintf("base %s: %.12s → %.12s", w.Base, image.Base, digest), nil
	}
	was := make([]*record.Material, len(image.Keys)) // nil where a layer is gone
	for j, k := range image.Keys {
		if rec, ok, err := quiet.FindLayer(k); err != nil {
			return "", err
		} else if ok {
			was[j] = &rec.Material
		}
	}
	return difference(w.Chain, image.Keys, was, i, max(1, w.Ground))
}

// difference tells what layer i of a chain has that the chain before it, of these
// keys and materials, had not.
func difference(now []*record.Material, keys []record.Key, was []*record.Material, i, ground int) (string, error) {
	first := 0 // layer that is another
	for ; first <= i && first < len(keys); first++ {
		if k, err := now[first].Key(); err != nil {
			return "", err
		} else if k != keys[first] {
			break
		}
	}
	if first > i {
		return "its layer is gone", nil
	}
	if why := changed(now, was, i); why != "" {
		return why, nil
	}
	// The step is what it was, so what is before it is not.
	wasGround := 1
	if len(was) > 1 && was[1] != nil && was[1].Kind == record.ContainerKind {
		wasGround = 2
	}
	then := func(m *record.Material) int { return index(was, m) - wasGround + 1 }
	step := first - ground + 1
	why := changed(now, was, first)
	switch {
	case first == 0:
		return why, nil
	case first < ground:
		return "another container image", nil
	case wasGround > ground && first == ground:
		return "there was a container image", nil
	case first == i:
		return fmt.Sprintf("was step %d", then(now[i])), nil
	case why == "":
		return fmt.Sprintf("step %d was step %d", step, then(now[first])), nil
	case why == "new":
		return fmt.Sprintf("step %d is new", step), nil
	}
	return fmt.Sprintf("step %d %s", step, why), nil
}

// changed compares layer i of a chain with the one that was in its place: "new"
// if nothing was, or if that has moved. It is "" if the same step was anywhere.
func changed(now, was []*record.Material, i int) string {
	switch {
	case index(was, now[i]) >= 0:
		return ""
	case i >= len(was):
		return "new"
	case was[i] == nil:
		return "changed"
	case was[i].Kind != now[i].Kind || index(now, was[i]) >= 0:
		return "new"
	}
	return now[i].Difference(was[i])
}

// index finds the step of m in a chain, whatever it comes after; -1 if it is not
// there.
func index(chain []*record.Material, m *record.Material) int {
	return slices.IndexFunc(chain, func(o *record.Material) bool {
		return o != nil && o.Kind == m.Kind && m.Difference(o) == "new"
	})
}
