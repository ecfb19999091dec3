package disk

import (
	"fmt"
	"os"

	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/ostree"
)

// Nobody may write to the files of a deployment: they are links to objects of its
// repository. Where steps are to change more than /etc and /var, the system's root is an
// overlay on the deployment, and what they change is in a directory of the same volume:
// so it is part of the fork, and of each layer. See package ostree for what becomes of it.

// overlaid is the root of a system that is seen through an overlay.
type overlaid struct {
	dir         string   // of the deployment in its volume
	mount, view *os.File // for a guest, and for a look into it
}

// overlay makes the overlay on the deployment that is the system's root.
func (i *Image) overlay(fresh bool) error {
	dir := i.Layout.Deployed()
	root, _ := i.Layout.Find(Root)
	if dir == "" {
		return fmt.Errorf("mount the image: its root is no deployment of ostree")
	}
	at := part{slot: root.Slot}
	view, err := i.view(at) // in which ids are the image's
	if err != nil {
		return err
	}
	if err := ostree.MakeWork(view, dir, fresh); err != nil {
		return err
	}
	volumes, errs := i.disk.Mount(i.request(at)) // one of its own: it is used up
	if errs[0] != nil {
		return errs[0]
	}
	defer volumes[0].Close()
	o := overlaid{dir: dir}
	if o.mount, o.view, err = mount.Overlay(volumes[0], dir, ostree.Upper, ostree.Workdir); err != nil {
		return err
	}
	i.overlaid = &o
	return nil
}
