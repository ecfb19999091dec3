package verify

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/refs"
)

var referencesCheck = Check{Name: "references", Version: 1, Run: references}

// maxDangling is how many references that lead nowhere are told of.
const maxDangling = 10

// references checks that each volume that a file of the image names is there.
func references(ctx context.Context, r Request) ([]record.Check, error) {
	c := record.Check{Name: "references", OK: true}
	trees, unreadable, err := r.Image.Trees()
	if err != nil {
		return nil, err
	}
	l := r.Image.Layout
	var dangling []string
	for _, err := range unreadable { // root could be opened, so this is about the volume, not the machine
		dangling = append(dangling, err.Error())
	}
	for _, t := range trees {
		named, err := refs.Files{FS: t.Tree, FAT: t.Volume.FS == "vfat"}.References(ctx)
		if err != nil {
			return nil, err
		}
		for _, ref := range named {
			if _, ok := l.Resolve(ref.Spec); !ok && ref.Needed {
				file := filepath.Join(t.At, ref.File)
				dangling = append(dangling, fmt.Sprintf("%s names %s, which no volume of the image has", file, ref.Spec))
			}
		}
	}
	if n := len(dangling) - maxDangling; n > 0 {
		dangling = append(dangling[:maxDangling], fmt.Sprintf("and %d more", n))
	}
	if len(dangling) > 0 {
		c.OK, c.Detail = false, strings.Join(dangling, "; ")
	}
	return []record.Check{c}, nil
}
