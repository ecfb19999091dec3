package mutate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/verify"
	"github.com/imgmut/imgmut/recipes"
)

// Resolve finds the base of a recipe. A file that the store has not seen before
// is imported.
func (e *Engine) Resolve(ctx context.Context, r *recipes.Recipe) (*record.Base, error) {
	b := r.Base
	if b.Path != "" {
		base, err := e.Import(ctx, b.Path, "", b.SHA256)
		if err != nil {
			err = fmt.Errorf("%s: base: %w", r.BasePlace(), err)
		}
		return base, err
	}
	base, err := e.Catalog().FindBase(b.Name)
	if errors.Is(err, store.ErrNotFound) {
		base, err = e.imageAsBase(ctx, b.Name)
	}
	if errors.Is(err, store.ErrNotFound) {
		_, statErr := os.Stat(filepath.Join(r.Dir, b.Name))
		mend := "imgmut import FILE " + b.Name + " gives a base that name, and imgmut ls lists those there are"
		if near := recipes.Nearest(b.Name, e.names()); near != "" {
			mend = "did you mean " + near + "?"
		}
		if statErr == nil {
			mend = "there is a file of that name beside the recipe: to use it write base: ./" + b.Name
		}
		if lost := e.lostBase(r); lost != "" {
			mend = lost
		}
		err = fault.New(fault.NotFound, mend, "%s: %w", r.BasePlace(), err)
	}
	return base, err
}

// names are those that a recipe's base may have, none if they cannot be told.
func (e *Engine) names() []string {
	bases, err := e.Catalog().Bases()
	if err != nil {
		return nil
	}
	images, err := e.Catalog().Images()
	if err != nil {
		return nil
	}
	var names []string
	for _, b := range bases {
		names = append(names, b.Names...)
	}
	for _, i := range images {
		names = append(names, i.Name)
	}
	return names
}

// imageAsBase lets a recipe build on an image that another recipe made.
func (e *Engine) imageAsBase(ctx context.Context, name string) (*record.Base, error) {
	if _, err := e.Catalog().FindImage(name); err != nil {
		return nil, fmt.Errorf("base %s: %w", name, store.ErrNotFound)
	}
	return e.Import(ctx, e.Catalog().ImageFile(name), "", "")
}

// Import makes the raw image in file a base of the store, under a name if one
// is given, and returns its record. A file that was imported before is known
// again by its identity and not read. wantSHA256, if not empty, is what
// sha256sum says of the file.
func (e *Engine) Import(ctx context.Context, file, name, wantSHA256 string) (_ *record.Base, err error) {
	file, err = filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	f, err := openImage(file)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", file, err)
	}
	defer f.Close()
	release, err := e.Store.Use(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if name != "" {
		letGo, err := e.Catalog().HoldName(ctx, name)
		if err != nil {
			return nil, err
		}
		defer letGo()
		if err := e.Catalog().FreeForBase(name); err != nil {
			return nil, err
		}
	}
	id, err := content.SettledID(ctx, f)
	if err != nil {
		return nil, err
	}
	base, err := e.seen(id)
	if err != nil {
		return nil, err
	}
	if base == nil {
		if base, err = e.importNew(ctx, f, id); err != nil {
			return nil, fmt.Errorf("import %s: %w", file, err)
		}
	}
	if err := e.checkSHA256(ctx, base, wantSHA256); err != nil {
		return nil, fmt.Errorf("base %s: %w", file, err)
	}
	if name != "" {
		return base, e.Catalog().NameBase(ctx, base, name)
	}
	return base, nil
}

// seen finds the base that a file is known to hold.
func (e *Engine) seen(id content.FileID) (*record.Base, error) {
	bases, err := e.Catalog().Bases()
	if err != nil {
		return nil, err
	}
	for _, b := range bases {
		if slices.Contains(b.Seen, id) {
			return b, nil
		}
	}
	return nil, nil
}

// importNew takes a file into the store. It is looked into before anything is
// copied, so that what cannot be used costs nothing.
func (e *Engine) importNew(ctx context.Context, f *os.File, id content.FileID) (*record.Base, error) {
	seen, err := e.lookInto(ctx, f)
	if err != nil {
		return nil, err
	}
	run, err := e.Store.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer run.Close()
	e.phase("import " + f.Name())
	tmp := run.Path("base")
	out, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	if err := e.take(ctx, out, f); err != nil {
		return nil, err
	}
	if now, err := content.IDOf(f); err != nil {
		return nil, err
	} else if now != id {
		return nil, fault.New(fault.Image, "stop what writes to it, a virtual machine perhaps",
			"the file changed while it was read")
	}
	if seen, err = e.settled(ctx, run, tmp, seen); err != nil {
		return nil, err
	}
	sums, err := content.Sum(ctx, out, e.progress("digest"))
	if err != nil {
		return nil, err
	}
	// Two imports of the same bytes at once: the second adds to the first.
	unlock, err := e.Store.Lock(ctx, "base-"+sums.Digest())
	if err != nil {
		return nil, err
	}
	defer unlock()
	b := &record.Base{Digest: sums.Digest(), Size: id.Size, Source: f.Name(), Imported: e.Now().UTC(), Layout: *seen.layout,
		Seen:     []content.FileID{id},
		Findings: seen.wrong(), Judged: verify.Judges(), Clean: seen.clean}
	var known record.Base
	err = e.Store.Update(ctx, store.Bases, b.Digest, &known, func() error { // the same bytes in another file
		known.Seen = append(known.Seen, id)
		return nil
	})
	if !errors.Is(err, store.ErrNotFound) {
		return &known, err
	}
	list, err := sums.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return b, e.Store.Publish(ctx, tmp, store.Bases, b.Digest, b, map[string][]byte{"sums": list})
}

// maxExtents is in how many pieces an image may lie on the disk. The kernel goes
// through all of them for each layer, at a dozen microseconds each, and no signal
// ends that.
const maxExtents = 1 << 19

// take fills out with the bytes of f: by reflink on one filesystem, else by a
// sparse copy.
func (e *Engine) take(ctx context.Context, out, f *os.File) error {
	if err := checkExtents(ctx, f, maxExtents); err != nil {
		return err
	}
	err := reflink.Clone(out, f)
	if !errors.Is(err, reflink.ErrUnsupported) {
		return err
	}
	need, err := reflink.DataSize(ctx, f)
	if err != nil {
		return err
	}
	if err := e.needSpace(need); err != nil {
		return err
	}
	if err := reflink.Copy(ctx, out, f, e.progress("copy")); err != nil {
		return err
	}
	return checkExtents(ctx, out, maxExtents)
}

// checkExtents refuses a file of more than most extents. On a filesystem that
// cannot tell, there is no cloning either.
func checkExtents(ctx context.Context, f *os.File, most int) error {
	n := 0
	for _, err := range reflink.Extents(ctx, f) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
			return nil // this filesystem does not tell
		}
		if err != nil {
			return err
		}
		if n++; n > most {
			return fault.New(fault.Image, "import a copy of it, made with cp --reflink=never --sparse=never",
				"the file lies on the disk in more than %d pieces, and each layer would take long", most)
		}
	}
	return nil
}

// checkSHA256 compares a base with the plain sha256 that a recipe pins. The
// sum is made once and remembered.
func (e *Engine) checkSHA256(ctx context.Context, b *record.Base, want string) error {
	if want == "" {
		return nil
	}
	if b.SHA256 == "" {
		e.phase("sha256 of the base")
		f, err := os.Open(e.Catalog().BaseFile(b.Digest))
		if err != nil {
			return err
		}
		defer f.Close()
		h, progress, done := sha256.New(), e.progress("sha256"), int64(0)
		_, err = io.Copy(h, content.Reader(ctx, f, func(n int) {
			done += int64(n)
			progress(done, b.Size) // holes are read as well: this sum takes as long as the image is large
		}))
		if err != nil {
			return err
		}
		err = e.Store.Update(ctx, store.Bases, b.Digest, b, func() error {
			b.SHA256 = hex.EncodeToString(h.Sum(nil))
			return nil
		})
		if err != nil {
			return err
		}
	}
	if !strings.EqualFold(b.SHA256, want) {
		mend := "fetch the base again, or correct base.sha256 in the recipe"
		if strings.EqualFold(b.Digest, want) {
			mend = "what the recipe has is imgmut's own digest of it; base.sha256 is what sha256sum tells"
		}
		return fault.New(fault.Image, mend, "its sha256 is %s, and the recipe wants %s", b.SHA256, want)
	}
	return nil
}

// openImage opens a raw image file that the user named. It looks before it
// opens: to open a device can do something, and a pipe waits for its other end.
// If the file becomes one under its eyes, it does not wait.
func openImage(file string) (*os.File, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fault.New(fault.Image, "give the path of a raw disk image", "not a regular file")
	}
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if is, err := f.Stat(); err != nil || !os.SameFile(fi, is) {
		f.Close()
		return nil, fault.New(fault.Image, "import it when nothing replaces it", "it was replaced while it was opened")
	}
	return f, nil
}
