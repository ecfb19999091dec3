package disk

import (
	"context"
	"os"
)

// OpenTree is the files of one volume, mounted alone.
type OpenTree struct {
	*Tree
	image *Image
}

// Open mounts one volume of the image f, whatever else is in it.
func (v Volume) Open(f *os.File, access Access) (*OpenTree, error) {
	i, err := OpenKnown(context.Background(), f, &Layout{Volumes: []Volume{v}}, func(string) {})
	if err != nil {
		return nil, err
	}
	i.access = access
	var t *Tree
	if v.FS == "vfat" {
		t, err = i.fat(v)
	} else {
		p := part{slot: v.Slot}
		if err = i.mount(p)[0]; err == nil {
			t = treeOf(i.mounted[p])
		}
	}
	if err != nil {
		i.Close()
		return nil, err
	}
	return &OpenTree{t, i}, nil
}

// Close unmounts it.
func (t *OpenTree) Close() error { return t.image.Close() }
