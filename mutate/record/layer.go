package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/imgmut/imgmut/mutate/disk"
)

// Key names a layer: 64 hexadecimal digits.
type Key string

// ContainerKind is the kind of a layer that is made of a container image: it is no step.
const ContainerKind = "bootc"

// Material is all that decides what is in a layer.
type Material struct {
	Parent  Key    // of the layer the step starts from; of a base, its content digest
	Kind    string // of the step
	Version int    // of the kind
	Options json.RawMessage
	Env     map[string]string `json:",omitempty"`
	Network bool              `json:",omitempty"`
	Boot    bool              `json:",omitempty"` // what works on how the image starts is lent to it
	Inputs  []Input           `json:",omitempty"`
}

// Key hashes the material: its canonical JSON, which has a fixed order of
// fields and sorted maps.
func (m *Material) Key() (Key, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("hash the material of a %s step: %w", m.Kind, err)
	}
	sum := sha256.Sum256(append([]byte("imgmut layer v1\n"), b...))
	return Key(hex.EncodeToString(sum[:])), nil
}

// Layer is what the store keeps beside a layer.
type Layer struct {
	Material Material  `json:"material"`
	Name     string    `json:"name,omitempty"` // of the step, when it was made
	Made     time.Time `json:"made"`
	// ParentMade is when the layer it starts from was made. A layer that is
	// made again keeps its key; this tells whose child this one is.
	ParentMade time.Time `json:"parentMade"`
	// Settled says that the volumes are as a clean unmount leaves them. Others
	// were frozen: sound, but some journals (XFS's) are still to be replayed.
	Settled bool `json:"settled"`
	// Mounts are what the system mounts, by what the step has left.
	Mounts []disk.Mounted `json:"mounts,omitempty"`
	// Hidden tells what the step has left where it will not be seen. Unwatched says that
	// nobody has looked, because the step said so.
	Hidden    []string      `json:"hidden,omitempty"`
	Unwatched bool          `json:"unwatched,omitempty"`
	Took      time.Duration `json:"took"` // of the step, nanoseconds
}

// Check is an error if this is no record of a layer.
func (l *Layer) Check(string) error {
	if l.Material.Kind == "" {
		return errors.New("it is no record of a layer")
	}
	return nil
}

// Input is one file that a step reads from beside the recipe, with the digest
// of all that matters of it.
type Input struct {
	Path   string
	Digest string
}

// Difference says in few words what m has that old has not: "new" if nothing.
func (m *Material) Difference(old *Material) string {
	if m.Version != old.Version {
		return "changed: imgmut's own " + m.Kind
	}
	var parts []string
	if options := optionDifference(m.Options, old.Options); options != "" {
		parts = append(parts, options)
	}
	if !maps.Equal(m.Env, old.Env) {
		parts = append(parts, "env")
	}
	if m.Network != old.Network {
		parts = append(parts, "network")
	}
	if m.Boot != old.Boot {
		parts = append(parts, "boot")
	}
	if input := inputDifference(m.Inputs, old.Inputs); input != "" {
		parts = append(parts, input)
	}
	if len(parts) == 0 {
		return "new"
	}
	return "changed: " + strings.Join(parts, ", ")
}

// optionDifference names the options that differ, "" if none does.
func optionDifference(now, old json.RawMessage) string {
	if sameJSON(now, old) {
		return ""
	}
	var a, b map[string]json.RawMessage
	if len(now) > 0 && json.Unmarshal(now, &a) != nil || len(old) > 0 && json.Unmarshal(old, &b) != nil {
		return "options of another form"
	}
	all := map[string]json.RawMessage{}
	maps.Copy(all, a)
	maps.Copy(all, b)
	maps.DeleteFunc(all, func(k string, _ json.RawMessage) bool { return sameJSON(a[k], b[k]) })
	names := strings.Join(slices.Sorted(maps.Keys(all)), ", ")
	switch len(all) {
	case 0: // null, and no options
		return "options of another form"
	case 1:
		return "option " + names
	}
	return "options " + names
}

// inputDifference names the first input that differs, "" if none does: of a tree
// there may be thousands.
func inputDifference(now, old []Input) string {
	was, is := map[string]string{}, map[string]bool{}
	for _, in := range old {
		was[in.Path] = in.Digest
	}
	for _, in := range now {
		if was[in.Path] != in.Digest {
			return "input " + in.Path
		}
		is[in.Path] = true
	}
	maps.DeleteFunc(was, func(path, _ string) bool { return is[path] })
	if gone := slices.Sorted(maps.Keys(was)); len(gone) > 0 {
		return "input " + gone[0] + " is gone"
	}
	return ""
}

// sameJSON compares without regard to form: a record is indented and escaped,
// and says null for nothing.
func sameJSON(a, b json.RawMessage) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	if errX != nil || errY != nil {
		return bytes.Equal(a, b)
	}
	return bytes.Equal(x, y)
}
