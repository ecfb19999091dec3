// Package bootc makes deployments of container images, as bootc does on a system that is
// booted, and without one.
//
// A container image for that is a whole system: a kernel in /usr/lib/modules, and no more
// in /boot. Its author is a stranger, and nothing of it runs here.
//
//	layer (a tar) ─[LayerFilter]─► commit of the layer ─┐ checked out one over the other,
//	layer (a tar) ─[LayerFilter]─► commit of the layer ─┴► commit of the tree ─► deployment
//
// The first half happens once for an image, in a repository beside the store's disks
// ([Repository.Import]): it has the layers of all images once, and what two images share
// is there once. The second half happens in each fork ([Repository.Deploy]): it pulls the
// commits, of which only what is new is copied, and deploys the tree. All of it is done by
// the machine's ostree in the way of package ostree.
//
// What is written is what bootc writes (ostree-ext, container/store.rs): a commit for each
// layer, named by its digest, and one of the tree with the manifest in its metadata. So
// bootc goes on from there: it finds the layers and fetches only others. An image whose
// first layer holds a commit of its own (label ostree.final-diffid) is the exception: bootc
// wants that very commit, and imgmut does not unpack it. The tree is right all the same,
// but the deployment has no origin that bootc could ask, and that is said.
package bootc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// Repository is where container images are kept as commits:
//
//	<dir>/ostree/repo/        the commits; mode bare, so that pulling copies files as they are
//	<dir>/ostree/imgmut/      what an import works on; nobody's if none does
//	<dir>/layers/CHAIN.json   a layer that is a commit, by all that is in it and below it
//	<dir>/images/DIGEST.json  an image that is one
//	<dir>/importing           says that not all in it need be on the disk
//
// A record is written when what it is of is on the disk. Who imports or collects has it
// alone; who deploys keeps it from being collected.
type Repository struct {
	Dir  string                  // made if need be
	Room func(bytes int64) error // is asked before that much is written
	// Phase is told what begins that takes its time, Progress the bytes of a layer that were
	// read and those that it has.
	Phase    func(text string)
	Progress func(done, total int64)
}

// Version is another one when other commits are made of the same image. What one of another
// version has made counts as not there.
const Version = 1

// Image is a container image that is a commit.
type Image struct {
	Version int     `json:"version"` // [Version] of what made it
	Digest  string  `json:"digest"`  // of its manifest, as sha256:…
	Commit  string  `json:"commit"`  // of its tree
	Layers  []Layer `json:"layers"`
	// Encapsulated says that the image holds a commit of its own, which is not there.
	Encapsulated bool `json:"encapsulated,omitempty"`
	// Composefs says that its system starts from composefs.
	Composefs bool `json:"composefs,omitempty"`
	// Arguments says that it has kernel arguments of its own (bootc's kargs.d).
	Arguments bool `json:"arguments,omitempty"`
	// Found are the names under which it was found.
	Found []Found `json:"found,omitempty"`
}

// Found is a name that an image was the answer to.
type Found struct {
	Name string    `json:"name"`
	When time.Time `json:"when"` // it was asked last
}

// Layer is a layer that is a commit.
type Layer struct {
	Version int    `json:"version"`          // [Version] of what made it
	Digest  string `json:"digest,omitempty"` // of the blob as the manifest has it, as sha256:…
	Chain   string `json:"chain"`            // SHA-256 of all that it is made of, in hex
	Commit  string `json:"commit"`
	Left    Left   `json:"left,omitzero"`
}

var (
	commitName  = lazyregexp.New(`^[0-9a-f]{64}$`)
	digestName  = lazyregexp.New(`^sha256:[0-9a-f]{64}$`)
	errNoRecord = errors.New("no such record")
)

// Find gives an image by the digest of its manifest, nil if it is not there.
func (r *Repository) Find(digest string) (*Image, error) {
	if !digestName().MatchString(digest) {
		return nil, nil
	}
	var i Image
	err := r.load("images", strings.TrimPrefix(digest, "sha256:"), &i)
	switch {
	case errors.Is(err, errNoRecord):
		return nil, nil
	case err == nil && (i.Version != Version || i.Digest != digest || !commitName().MatchString(i.Commit)):
		return nil, nil
	}
	return &i, err
}

// Images gives all that are there.
func (r *Repository) Images() ([]*Image, error) {
	entries, err := os.ReadDir(filepath.Join(r.Dir, "images"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []*Image
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		i, findErr := r.Find("sha256:" + name)
		if i != nil {
			all = append(all, i)
		}
		err = errors.Join(err, findErr)
	}
	return all, err
}

// Known gives the image that a name was found to be last, and when; nil if it never was.
func (r *Repository) Known(name string) (last *Image, when time.Time, err error) {
	all, err := r.Images()
	for _, i := range all {
		for _, f := range i.Found {
			if f.Name == name && f.When.After(when) {
				last, when = i, f.When
			}
		}
	}
	return last, when, err
}

// SetFound writes down that a name was found to be an image.
func (r *Repository) SetFound(i *Image, name string, when time.Time) error {
	i.Found = slices.DeleteFunc(i.Found, func(f Found) bool { return f.Name == name })
	i.Found = append(i.Found, Found{name, when})
	return r.save("images", strings.TrimPrefix(i.Digest, "sha256:"), i)
}

// load reads a record. One that cannot be understood is none: what it is of is made anew.
func (r *Repository) load(kind, name string, into any) error {
	b, err := os.ReadFile(filepath.Join(r.Dir, kind, name+".json"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && json.Unmarshal(b, into) != nil {
		return errNoRecord
	}
	return err
}

// save writes a record.
func (r *Repository) save(kind, name string, rec any) error {
	b, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Join(r.Dir, kind), ".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(r.Dir, kind, name+".json"))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep a container image: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// left joins what was left out of the layers of an image.
func (i *Image) left() (all Left) {
	for _, l := range i.Layers {
		all.Devices += l.Left.Devices
		all.Var += l.Left.Var
		if all.Device == "" {
			all.Device = l.Left.Device
		}
	}
	return all
}

// Notes are what people should know of the system that is made of an image, a line each.
func (i *Image) Notes() (notes []string) {
	left := i.left()
	if left.Devices > 0 {
		notes = append(notes, fmt.Sprintf("device nodes of the image are left out, of which ostree has none: %.200q%s",
			left.Device, andMore(left.Devices)))
	}
	if left.Var > 0 {
		notes = append(notes, fmt.Sprintf("what the image has below /var (%d entries) is not seen by its system: /var is the disk's", left.Var))
	}
	if i.Arguments {
		notes = append(notes, "kernel arguments in the image's /usr/lib/bootc/kargs.d are not taken: those that the disk has stay")
	}
	if i.Encapsulated {
		notes = append(notes, "the image holds a commit of ostree that bootc would ask for and imgmut does not unpack: "+
			"the deployment has no origin, so bootc upgrade does nothing until bootc switch names an image")
	}
	return notes
}

func andMore(n int) string {
	if n == 1 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n-1)
}

// wrong is an error about a container image.
func wrong(mend, format string, args ...any) error {
	return fault.New(fault.Image, mend, format, args...)
}
