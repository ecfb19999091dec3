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
	i, c := r.Image, record.Check{Name: "references", OK: true}
	if err := i.FindRoles(); err != nil {
		return nil, err
	}
	l := i.Layout
	var dangling []string
	for _, v := range l.Volumes {
		if !v.HasReferences() {
			continue
		}
		tree, err := i.Tree(v)
		if err != nil { // root could be opened, so this is about the volume, not the machine
			dangling = append(dangling, err.Error())
			continue
		}
		named, err := refs.Files{FS: tree, FAT: v.FS == "vfat"}.References(ctx)
		if err != nil {
			return nil, err
		}
		for _, ref := range named {
			if _, ok := l.Resolve(ref.Spec); !ok && ref.Needed {
				file := filepath.Join(v.Mountpoint, ref.File)
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
