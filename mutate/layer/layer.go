// Package layer names and keeps layers: the whole disk after one step.
//
// A layer is named before it exists, by a key: the hash of all that decides
// what is in it ([Material]). Keys are chained, so a key stands for a base and
// every step up to it, and recipes that begin with the same steps share those
// layers without knowing of each other. What is given to a finished image
// afterwards, its name and its identity, is in no key.
//
// The material is kept with the layer. It explains the key, and it tells why a
// layer could not be reused: what differs between the material wanted and that
// of its nearest relative in the store ([Why]).
package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/imgmut/imgmut/mutate/step"
	"github.com/imgmut/imgmut/mutate/store"
)

// Key names a layer: 64 hexadecimal digits.
type Key string

// Material is all that decides what is in a layer.
type Material struct {
	Parent  Key    // of the layer the step starts from; of a base, its content digest
	Kind    string // of the step
	Version int    // of the kind
	Options json.RawMessage
	Env     map[string]string `json:",omitempty"`
	Network bool              `json:",omitempty"`
	Inputs  []step.Input      `json:",omitempty"`
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

// Record is what the store keeps beside a layer.
type Record struct {
	Material Material  `json:"material"`
	Name     string    `json:"name,omitempty"` // of the step, when it was made
	Made     time.Time `json:"made"`
	// ParentMade is when the layer it starts from was made. A layer that is
	// made again keeps its key; this tells whose child this one is.
	ParentMade time.Time `json:"parentMade"`
	// Settled says that the volumes are as a clean unmount leaves them. Others
	// were frozen: sound, but some journals (XFS's) are still to be replayed.
	Settled bool          `json:"settled"`
	Took    time.Duration `json:"took"` // of the step, nanoseconds
}

// Find looks a layer up. ok is false if there is none, or if it is older than
// maxAge (0 is any age).
func Find(s *store.Store, k Key, maxAge time.Duration, now time.Time) (rec Record, ok bool, err error) {
	err = s.Load(store.Layers, string(k), &rec)
	if errors.Is(err, store.ErrNotFound) {
		return rec, false, nil
	}
	if err != nil {
		return rec, false, err
	}
	return rec, maxAge == 0 || now.Sub(rec.Made) <= maxAge, nil
}

// Commit gives the run's file the name of its key. It is the last moment at
// which a crash leaves no layer.
func Commit(ctx context.Context, s *store.Store, file string, k Key, rec Record) error {
	if err := s.Publish(ctx, file, store.Layers, string(k), rec, nil); err != nil {
		return fmt.Errorf("commit layer: %w", err)
	}
	return nil
}

// Why tells what keeps a layer of this material from being there: "new", or
// what differs from the layer that the same parent has for the same kind of
// step, the newest if there are several.
func Why(s *store.Store, m *Material) (string, error) {
	keys, err := s.Names(store.Layers)
	if err != nil {
		return "", err
	}
	var nearest *Record
	for _, k := range keys {
		var rec Record
		if err := s.Load(store.Layers, k, &rec); err != nil {
			continue // removed since
		}
		if rec.Material.Parent == m.Parent && rec.Material.Kind == m.Kind && (nearest == nil || rec.Made.After(nearest.Made)) {
			nearest = &rec
		}
	}
	if nearest == nil {
		return "new", nil
	}
	return m.difference(&nearest.Material), nil
}

// difference says in few words what m has otherwise than old.
func (m *Material) difference(old *Material) string {
	switch {
	case m.Version != old.Version:
		return "changed: imgmut's own " + m.Kind
	case !sameJSON(m.Options, old.Options):
		return "changed: option " + optionDifference(m.Options, old.Options)
	case !maps.Equal(m.Env, old.Env):
		return "changed: env"
	case m.Network != old.Network:
		return "changed: network"
	}
	was, is := map[string]string{}, map[string]bool{}
	for _, in := range old.Inputs {
		was[in.Path] = in.Digest
	}
	for _, in := range m.Inputs {
		if was[in.Path] != in.Digest {
			return "changed: input " + in.Path
		}
		is[in.Path] = true
	}
	maps.DeleteFunc(was, func(path, _ string) bool { return is[path] })
	if gone := slices.Sorted(maps.Keys(was)); len(gone) > 0 {
		return "changed: input " + gone[0] + " is gone"
	}
	return "new"
}

// optionDifference names the first option, by the alphabet, that differs.
func optionDifference(now, old json.RawMessage) string {
	var a, b map[string]json.RawMessage
	if len(now) > 0 && json.Unmarshal(now, &a) != nil || len(old) > 0 && json.Unmarshal(old, &b) != nil {
		return "of another form"
	}
	all := map[string]json.RawMessage{}
	maps.Copy(all, a)
	maps.Copy(all, b)
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if !sameJSON(a[k], b[k]) {
			return k
		}
	}
	return "of another form"
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
