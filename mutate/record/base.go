package record

import (
	"errors"
	"time"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// Base is the record of an imported raw image.
type Base struct {
	Digest   string           `json:"digest"` // content digest, its name in the store
	Names    []string         `json:"names"`
	Size     int64            `json:"size"`             // bytes
	SHA256   string           `json:"sha256,omitempty"` // plain sha256 of the file, if it was ever asked for
	SHA512   string           `json:"sha512,omitempty"` // likewise
	Source   string           `json:"source"`           // path or URL it was imported from
	Imported time.Time        `json:"imported"`
	Layout   disk.Layout      `json:"layout"`
	Seen     []content.FileID `json:"seen"` // files known to have these bytes, or to unpack to them
	// Origins is what is known of files that it was made of, beside Seen: of those that
	// are not raw, and of those that were fetched.
	Origins []Origin `json:"origins,omitempty"`
	// Findings are what is wrong with it: not the fault of an image that is made of
	// it. Judged says by which checks they were found; it is empty in records that
	// have none yet.
	Findings []string `json:"findings,omitempty"`
	Judged   string   `json:"judged,omitempty"`
	// Clean are the files in it that are read at boot and do not name its partitions, in
	// the form of package verify. They need not be read again in an image made of it.
	Clean []byte `json:"clean,omitempty"`
	// Naming are files in it that do, of each of its trees ([disk.Placed.Key]).
	Naming map[string][]string `json:"naming,omitempty"`
}

// Origin is a file that a base was made of.
type Origin struct {
	File content.FileID `json:"file,omitzero"` // unless it was fetched
	Is   []string       `json:"is,omitempty"`  // from the outside in, as "xz" and "qcow2"; empty if it is raw
	// SHA256 and SHA512 are those of the file, in hex, if they were ever asked for.
	SHA256 string `json:"sha256,omitempty"`
	SHA512 string `json:"sha512,omitempty"`
	// URL is what it was fetched from, without what may be secret in that. Sums is the list
	// of sums that was asked which file that is, and Keyring the SHA-256 of the keys that it
	// was signed by. Fetched is when they were asked last; zero if the sum was pinned.
	URL     string    `json:"url,omitempty"`
	Sums    string    `json:"sums,omitempty"`
	Keyring string    `json:"keyring,omitempty"`
	Fetched time.Time `json:"fetched,omitzero"`
}

// Answers says whether o is an answer to the same question as another.
func (o Origin) Answers(other Origin) bool {
	return !o.Fetched.IsZero() && o.URL == other.URL && o.Sums == other.Sums && o.Keyring == other.Keyring
}

// OriginOf gives what is known of a file, nil if that is raw, or not of this base.
func (b *Base) OriginOf(id content.FileID) *Origin {
	for n := range b.Origins {
		if b.Origins[n].File == id {
			return &b.Origins[n]
		}
	}
	return nil
}

// digestForm is what a content digest looks like.
var digestForm = lazyregexp.New(`^[0-9a-f]{64}$`)

// Check is an error if this is not the record of the base with that digest.
func (b *Base) Check(digest string) error {
	if b.Digest != digest || !digestForm().MatchString(digest) {
		return errors.New("it is no record of this base")
	}
	return nil
}
