package mutate

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"io"
	"os"
	"strings"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// checkSums compares a file, of which a base was made, with the sums that a recipe pins:
// those that sha256sum and sha512sum print. Each is made once and remembered, of a raw
// file as that of the base.
func (e *Engine) checkSums(ctx context.Context, b *record.Base, f *os.File, id content.FileID, want recipes.Base) error {
	kept := func(of256 bool) *string {
		p := b.OriginOf(id)
		switch {
		case p == nil && of256:
			return &b.SHA256
		case p == nil:
			return &b.SHA512
		case of256:
			return &p.SHA256
		}
		return &p.SHA512
	}
	for _, s := range []struct {
		name, want string
		hash       hash.Hash
		kept       func() *string
	}{
		{"sha256", want.SHA256, sha256.New(), func() *string { return kept(true) }},
		{"sha512", want.SHA512, sha512.New(), func() *string { return kept(false) }},
	} {
		if s.want == "" {
			continue
		}
		if *s.kept() == "" {
			sum, err := e.sumOf(ctx, f, s.name, s.hash)
			if err != nil {
				return err
			}
			err = e.Store.Update(ctx, store.Bases, b.Digest, b, func() error {
				*s.kept() = sum
				return nil
			})
			if err != nil {
				return err
			}
		}
		if !strings.EqualFold(*s.kept(), s.want) {
			mend := "fetch the base again, or correct base." + s.name + " in the recipe"
			if strings.EqualFold(b.Digest, s.want) {
				mend = "what the recipe has is imgmut's own digest of it; base.sha256 is what sha256sum tells"
			}
			return fault.New(fault.Image, mend, "its %s is %s, and the recipe wants %s", s.name, *s.kept(), s.want)
		}
	}
	return nil
}

// sumOf is what sha256sum or its kin print of a file. Holes are read as well, so it takes
// as long as the file is large.
func (e *Engine) sumOf(ctx context.Context, f *os.File, name string, h hash.Hash) (string, error) {
	e.phase(name + " of " + f.Name())
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	progress, done := e.progress(name), int64(0)
	_, err = io.Copy(h, content.Reader(ctx, io.NewSectionReader(f, 0, fi.Size()), func(n int) {
		done += int64(n)
		progress(done, fi.Size())
	}))
	return hex.EncodeToString(h.Sum(nil)), err
}
