package verify

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/refs"
)

var referencesCheck = judged("references", 3, dangling)

// dangling finds the references to volumes that the image does not have, and mounts
// that cannot be made of those it has. A base may name a disk that its machine has besides; its UUIDs stay as they are, so
// the text is the key.
func dangling(ctx context.Context, i *disk.Image) ([]finding, error) {
	trees, unreadable, err := i.Trees()
	if err != nil {
		return nil, err
	}
	var found []finding
	for _, err := range unreadable { // root could be opened, so this is about the volume, not the machine
		found = append(found, finding{what: err.Error()})
	}
	for _, t := range trees {
		named, err := refs.Files{FS: t.Tree, FAT: t.Volume.FS == "vfat"}.References(ctx)
		if err != nil {
			return nil, err
		}
		for _, ref := range named {
			if _, ok := i.Layout.Resolve(ref.Spec); !ok && ref.Needed {
				file := filepath.Join(t.At, ref.File)
				found = append(found, finding{
					what: fmt.Sprintf("%s names %s, which no volume of the image has", file, ref.Spec)})
			}
		}
	}
	more, err := unmountable(i)
	return append(found, more...), err
}
