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

// hasSums says whether the sums that a recipe pins can be compared with what is known of
// a file: those of one that is not raw were made when it was imported, or not at all.
func hasSums(b *record.Base, id content.FileID, want recipes.Base) bool {
	o := b.OriginOf(id)
	return o == nil || (want.SHA256 == "" || o.SHA256 != "") && (want.SHA512 == "" || o.SHA512 != "")
}

// checkSums compares the sums of a file, of which a base was made, with those that a recipe
// pins. A raw file has those of the base, which are made once and remembered.
func (e *Engine) checkSums(ctx context.Context, b *record.Base, id content.FileID, want recipes.Base) error {
	if o := b.OriginOf(id); o != nil {
		return compareSums(want, b.Digest, o.SHA256, o.SHA512)
	}
	if want.SHA256 != "" && b.SHA256 == "" || want.SHA512 != "" && b.SHA512 == "" {
		f, err := os.Open(e.Catalog().BaseFile(b.Digest))
		if err != nil {
			return err
		}
		defer f.Close()
		of256, of512, err := e.sumsOf(ctx, f, want)
		if err != nil {
			return err
		}
		err = e.Store.Update(ctx, store.Bases, b.Digest, b, func() error {
			if of256 != "" {
				b.SHA256 = of256
			}
			if of512 != "" {
				b.SHA512 = of512
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return compareSums(want, b.Digest, b.SHA256, b.SHA512)
}

// plainSums gives those sums of a file that a recipe pins, which they have to be.
func (e *Engine) plainSums(ctx context.Context, f *os.File, want recipes.Base) (of256, of512 string, err error) {
	if of256, of512, err = e.sumsOf(ctx, f, want); err != nil {
		return "", "", err
	}
	return of256, of512, compareSums(want, "", of256, of512)
}

// compareSums is an error of class [fault.Image] if a sum is not the one that is wanted.
// digest is that of the base, if there is one.
func compareSums(want recipes.Base, digest, of256, of512 string) error {
	for _, s := range []struct{ name, want, is string }{{"sha256", want.SHA256, of256}, {"sha512", want.SHA512, of512}} {
		if s.want == "" || strings.EqualFold(s.is, s.want) {
			continue
		}
		mend := "fetch the base again, or correct base." + s.name + " in the recipe"
		if strings.EqualFold(digest, s.want) {
			mend = "what the recipe has is imgmut's own digest of it; base.sha256 is what sha256sum tells"
		}
		return fault.New(fault.Image, mend, "its %s is %s, and the recipe wants %s", s.name, s.is, s.want)
	}
	return nil
}

// sumsOf is what sha256sum and sha512sum print of a file, of those that a recipe pins. Holes
// are read as well, so it takes as long as the file is large.
func (e *Engine) sumsOf(ctx context.Context, f *os.File, want recipes.Base) (of256, of512 string, err error) {
	var all []io.Writer
	var names []string
	sum := func(name, wanted string, h hash.Hash) func() string {
		if wanted == "" {
			return func() string { return "" }
		}
		all, names = append(all, h), append(names, name)
		return func() string { return hex.EncodeToString(h.Sum(nil)) }
	}
	sum256, sum512 := sum("sha256", want.SHA256, sha256.New()), sum("sha512", want.SHA512, sha512.New())
	if len(all) == 0 {
		return "", "", nil
	}
	e.phase(strings.Join(names, " and ") + " of the base")
	fi, err := f.Stat()
	if err != nil {
		return "", "", err
	}
	progress, done := e.progress("sum"), int64(0)
	_, err = io.Copy(io.MultiWriter(all...), content.Reader(ctx, io.NewSectionReader(f, 0, fi.Size()), func(n int) {
		done += int64(n)
		progress(done, fi.Size())
	}))
	return sum256(), sum512(), err
}
