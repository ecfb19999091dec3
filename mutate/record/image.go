package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/ostree"
)

// Image is the record of a finished image.
type Image struct {
	Name     string         `json:"name"`
	Digest   string         `json:"digest"` // content digest
	Size     int64          `json:"size"`   // bytes
	File     content.FileID `json:"file"`   // of the raw file as it was published
	Made     time.Time      `json:"made"`
	Base     string         `json:"base"`               // content digest
	BaseName string         `json:"baseName,omitempty"` // as the recipe names it
	Keys     []Key          `json:"keys"`               // of the chain, "prepare" first
	// LayerMade is when the last layer of the chain was made. A layer that is made
	// again keeps its key. It is zero in records that did not say so yet.
	LayerMade  time.Time   `json:"layerMade,omitzero"`
	Recipe     string      `json:"recipe"`       // path
	RecipeSum  string      `json:"recipeSHA256"` // sha256 of its bytes
	Identity   Identity    `json:"identity"`
	Assertions []Assertion `json:"assertions,omitempty"` // what the recipe's verify: asks
	Known      []string    `json:"known,omitempty"`      // what was wrong with its base already
	Verdict    Verdict     `json:"verdict"`
	Imgmut     string      `json:"imgmut"`               // version
	Systemd    int         `json:"systemd,omitempty"`    // major version of the host's, 0 if none was started
	PoolFile   *PoolFile   `json:"registered,omitempty"` // of this image, or of one before it of that name
	// Ostree is nil unless the recipe asked for a new deployment. Deployments are those in
	// the image, the default first.
	Ostree      *Ostree             `json:"ostree,omitempty"`
	Deployments []ostree.Deployment `json:"deployments,omitempty"`
}

// Check is an error if this is not the record of the image of that name, which
// has the key of "prepare" at least.
func (i *Image) Check(name string) error {
	if i.Name != name || len(i.Keys) == 0 {
		return errors.New("it is no record of this image")
	}
	return nil
}

// Ostree says how an image was made of a system of ostree.
type Ostree struct {
	Mode string `json:"mode"`
	Keep int    `json:"keep,omitempty"` // deployments, if it was said
}

// Equal says whether two images were made in the same way. nil is the way of all others.
func (o *Ostree) Equal(other *Ostree) bool {
	if o == nil || other == nil {
		return o == other
	}
	return *o == *other
}

// Identity is what sets an image apart from all others with the same bytes.
type Identity struct {
	Disk       string            `json:"disk"`       // disk GUID, or the MBR's signature
	Partitions map[string]string `json:"partitions"` // UUIDs in lower case: from the base's to the image's
	// Filesystems are UUIDs, and the serials of FAT volumes, as UUID= has them: from
	// the base's, in lower case, to the image's. Labels are those of the base and of
	// the image. There are none if the recipe does not ask for them.
	Filesystems map[string]string `json:"filesystems,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	KeepTypes   bool              `json:"keepTypes,omitempty"` // of partitions, as the base has them
}

// Equal says whether two images are set apart in the same way.
func (i Identity) Equal(o Identity) bool {
	return i.Disk == o.Disk && i.KeepTypes == o.KeepTypes && maps.Equal(i.Partitions, o.Partitions) &&
		maps.Equal(i.Filesystems, o.Filesystems) && maps.Equal(i.Labels, o.Labels)
}

// PoolFile is a file in machined's pool.
type PoolFile struct {
	Path   string         `json:"path"`
	Digest string         `json:"digest"` // of the image that was put there
	ID     content.FileID `json:"id"`     // as it was put there
}

// Assertion is an assertion as it is kept with an image, so that the image can
// be judged again when its recipe is gone.
type Assertion struct {
	Kind    string          `json:"kind"`
	Options json.RawMessage `json:"options"`
}

// SameAssertions tells whether two lists ask the same questions. Records are
// indented, so white space does not count.
func SameAssertions(a, b []Assertion) bool {
	return slices.EqualFunc(a, b, func(x, y Assertion) bool {
		var p, q bytes.Buffer
		return x.Kind == y.Kind && json.Compact(&p, x.Options) == nil && json.Compact(&q, y.Options) == nil &&
			bytes.Equal(p.Bytes(), q.Bytes())
	})
}
