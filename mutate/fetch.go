package mutate

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/remote"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// fetch gives the base that a URL has. A sum that the recipe pins is one base for ever. A
// list of sums, or a tag of a registry, may name another one tomorrow: it is asked if
// that is to be known anew.
func (e *Engine) fetch(ctx context.Context, of recipes.Base, anew bool) (*record.Base, error) {
	file := remote.File{URL: of.URL, SHA256: of.SHA256, SHA512: of.SHA512}
	pinned := of.SHA256+of.SHA512 != ""
	if !pinned && !anew {
		if base, err := e.lastFetched(of); base != nil || err != nil {
			return base, err
		}
	}
	f := remote.Fetcher{Proxy: e.Proxy, Room: e.room(ctx), Progress: e.progress("fetch"), Note: e.note}
	file, err := e.promised(ctx, &f, of, file)
	if err != nil {
		return nil, err
	}
	sum := cmp.Or(file.SHA256, file.SHA512)
	// Two that want the same: the second finds it there.
	unlock, err := e.Store.Lock(ctx, "fetch-"+sum)
	if err != nil {
		return nil, err
	}
	defer unlock()
	answer, err := answerTo(of)
	if err != nil {
		return nil, err
	}
	if !pinned {
		answer.Fetched = e.Now().UTC()
	}
	base, err := e.withSum(file)
	if base != nil || err != nil {
		if err == nil && !pinned {
			err = e.foundAgain(ctx, base, answer)
		}
		return base, err
	}
	e.phase("fetch " + answer.URL)
	part := e.Store.Download(sum)
	if err := f.Get(ctx, file, part); err != nil {
		return nil, err
	}
	answer.SHA256, answer.SHA512 = file.SHA256, file.SHA512
	base, err = e.importFetched(ctx, part, of, answer)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", answer.URL, err)
	}
	return base, errors.Join(os.Remove(part), os.Remove(part+remote.MarkEnd))
}

// answerTo is what is remembered of a question: where it was asked, of which list of sums,
// and whose signature it had to have. To another question it is no answer.
func answerTo(of recipes.Base) (record.Origin, error) {
	o := record.Origin{URL: remote.Shown(of.URL), Sums: remote.Shown(of.Sums)}
	if of.Keyring != "" {
		b, err := os.ReadFile(of.Keyring)
		if err != nil {
			return o, fmt.Errorf("base: keyring: %w", err)
		}
		sum := sha256.Sum256(b)
		o.Keyring = hex.EncodeToString(sum[:])
	}
	return o, nil
}

// promised gives the file with the sum that it must have.
func (e *Engine) promised(
	ctx context.Context, f *remote.Fetcher, of recipes.Base, file remote.File,
) (_ remote.File, err error) {
	if reference, ok := strings.CutPrefix(of.URL, "oci:"); ok {
		return f.Artifact(ctx, reference)
	}
	if of.Sums == "" {
		return file, nil
	}
	run, err := e.Store.Begin(ctx)
	if err != nil {
		return file, err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	return f.Sums(ctx, of.URL, of.Sums, of.Keyring, run.Path(""))
}

// importFetched imports what was fetched.
func (e *Engine) importFetched(ctx context.Context, part string, of recipes.Base, o record.Origin) (*record.Base, error) {
	f, err := openImage(part)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	id, err := content.IDOf(f)
	if err != nil {
		return nil, err
	}
	return e.importNew(ctx, source{f: f, id: id, name: o.URL, of: of, origin: &o})
}

// lastFetched is the base that was the last answer to a question, nil if that is too long
// ago. That somebody pins the sum of a file says nothing of what the URL has.
func (e *Engine) lastFetched(of recipes.Base) (last *record.Base, err error) {
	asked, err := answerTo(of)
	if err != nil {
		return nil, err
	}
	bases, err := e.Catalog().Bases()
	var when time.Time
	for _, b := range bases {
		for _, o := range b.Origins {
			if o.Answers(asked) && o.Fetched.After(when) {
				last, when = b, o.Fetched
			}
		}
	}
	if of.MaxAge > 0 && e.Now().Sub(when) > of.MaxAge {
		return nil, err
	}
	return last, err
}

// withSum is the base that was made of a file with the sum of this one, nil if none was.
func (e *Engine) withSum(file remote.File) (*record.Base, error) {
	bases, err := e.Catalog().Bases()
	if err != nil {
		return nil, err
	}
	is := func(of256, of512 string) bool {
		return file.SHA256 != "" && of256 == file.SHA256 || file.SHA512 != "" && of512 == file.SHA512
	}
	for _, b := range bases {
		if is(b.SHA256, b.SHA512) {
			return b, nil
		}
		for _, o := range b.Origins {
			if is(o.SHA256, o.SHA512) {
				return b, nil
			}
		}
	}
	return nil, nil
}

// foundAgain writes down that a question still has a base for its answer, or has it too.
func (e *Engine) foundAgain(ctx context.Context, b *record.Base, answer record.Origin) error {
	return e.Store.Update(ctx, store.Bases, b.Digest, b, func() error {
		for n := range b.Origins {
			if b.Origins[n].Answers(answer) {
				b.Origins[n].Fetched = answer.Fetched
				return nil
			}
		}
		b.Origins = append(b.Origins, answer)
		return nil
	})
}
