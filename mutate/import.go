package mutate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/format"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// Import makes an image a base of the store, under a name if one is given, and returns its
// record. It is in the file of.Path, or at of.URL, of any format that package format
// reads. A file that was imported before is known again by its identity and not read, and
// what is at a URL by its sum, and not fetched.
func (e *Engine) Import(ctx context.Context, of recipes.Base, name string) (*record.Base, error) {
	return e.importAs(ctx, of, name, true)
}

// importAs is Import. Unless it is to be anew, what was ever fetched from a URL, no longer
// ago than of.MaxAge, is what is there.
func (e *Engine) importAs(ctx context.Context, of recipes.Base, name string, anew bool) (*record.Base, error) {
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
	var base *record.Base
	if of.URL != "" {
		base, err = e.fetch(ctx, of, anew)
	} else {
		base, err = e.importFile(ctx, of)
	}
	if err != nil || name == "" {
		return base, err
	}
	return base, e.Catalog().NameBase(ctx, base, name)
}

// importFile imports a file of the machine.
func (e *Engine) importFile(ctx context.Context, of recipes.Base) (*record.Base, error) {
	file, err := filepath.Abs(of.Path)
	if err != nil {
		return nil, err
	}
	f, err := openImage(file)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", file, err)
	}
	defer f.Close()
	id, err := content.SettledID(ctx, f)
	if err != nil {
		return nil, err
	}
	base, err := e.seen(id)
	if err != nil {
		return nil, err
	}
	if base == nil || !hasSums(base, id, of) {
		if base, err = e.importNew(ctx, source{f: f, id: id, name: file, of: of}); err != nil {
			return nil, fmt.Errorf("import %s: %w", file, err)
		}
		return base, nil
	}
	if err := e.checkSums(ctx, base, id, of); err != nil {
		return nil, fmt.Errorf("base %s: %w", file, err)
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

// source is a file that is to become a base.
type source struct {
	f    *os.File
	id   content.FileID
	name string       // path or URL, for people
	of   recipes.Base // what was said of it
	// origin is what is known of it already, if it is one that was fetched: imgmut's own
	// file, which has the right sum.
	origin *record.Origin
}

// importNew takes a file into the store.
func (e *Engine) importNew(ctx context.Context, s source) (_ *record.Base, err error) {
	run, err := e.Store.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	f, err := e.held(ctx, run, &s)
	if err != nil {
		return nil, err
	}
	if f != s.f {
		defer f.Close()
	}
	image := &format.Image{File: f}
	if !s.of.Raw {
		if image, err = e.unpack(ctx, run, f, s); err != nil {
			return nil, err
		}
	}
	defer image.Close(f)
	e.phase("import " + s.name)
	tmp := run.Path("base")
	seen, sums, err := e.lookAndTake(ctx, image.File, tmp)
	if err != nil {
		return nil, err
	}
	if now, err := content.IDOf(s.f); err != nil {
		return nil, err
	} else if now != s.id {
		return nil, fault.New(fault.Image, "stop what writes to it, a virtual machine perhaps",
			"the file changed while it was read")
	}
	if seen, err = e.settled(ctx, run, tmp, seen); err != nil {
		return nil, err
	}
	e.note("found: " + seen.words(sums.Size(), image.Is))
	b := &record.Base{Digest: sums.Digest(), Size: sums.Size(), Source: s.name, Imported: e.Now().UTC(), Layout: *seen.layout}
	seen.judge(b)
	return b, e.publishBase(ctx, b, tmp, sums, func(b *record.Base) {
		if !image.Backed { // or it may become another image though the file stays as it is
			s.remember(b, image.Is)
		}
	})
}

// remember writes down what is known of the file now.
func (s source) remember(b *record.Base, is []string) {
	if s.origin != nil {
		o := *s.origin
		o.Is = is
		b.Origins = append(b.Origins, o)
		return
	}
	if !slices.Contains(b.Seen, s.id) {
		b.Seen = append(b.Seen, s.id)
	}
	if len(is) == 0 {
		b.SHA256, b.SHA512 = cmp.Or(b.SHA256, s.of.SHA256), cmp.Or(b.SHA512, s.of.SHA512)
		return
	}
	o := b.OriginOf(s.id)
	if o == nil {
		b.Origins = append(b.Origins, record.Origin{File: s.id, Is: is})
		o = &b.Origins[len(b.Origins)-1]
	}
	o.SHA256, o.SHA512 = cmp.Or(s.of.SHA256, o.SHA256), cmp.Or(s.of.SHA512, o.SHA512)
}

// held gives a file that stays as it is: its owner can change that of the user at any
// moment, and put back what the kernel says of it. What is not raw is read more than once,
// by programs that open what it names, and a sum has to be of what is used. So those are
// used from a copy, which is a clone where there can be one. The sums are compared before
// anything is believed of the file.
func (e *Engine) held(ctx context.Context, run *store.Workspace, s *source) (*os.File, error) {
	form, err := format.Of(s.f)
	if err != nil {
		return nil, err
	}
	pinned := s.of.SHA256+s.of.SHA512 != ""
	if s.origin != nil || !pinned && (form == "" || s.of.Raw) {
		return s.f, nil
	}
	f, err := e.copyOf(ctx, run.Path("source"), s.f)
	if err != nil {
		return nil, err
	}
	s.of.SHA256, s.of.SHA512, err = e.plainSums(ctx, f, s.of)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// copyOf makes a file with the bytes of another.
func (e *Engine) copyOf(ctx context.Context, name string, f *os.File) (*os.File, error) {
	out, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err = reflink.Clone(out, f); errors.Is(err, reflink.ErrUnsupported) {
		if err = e.roomFor(ctx, f); err == nil {
			err = reflink.Copy(ctx, out, f, e.progress("copy"))
		}
	}
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}

// roomFor is an error if a copy of a file has no room.
func (e *Engine) roomFor(ctx context.Context, f *os.File) error {
	need, err := reflink.DataSize(ctx, f)
	if err != nil {
		return err
	}
	return e.needSpace(ctx, need)
}

// lookAndTake looks into a raw image, and takes it meanwhile: each keeps one core busy for
// some time. That it cannot be used shows soon, and then no more of it is taken.
func (e *Engine) lookAndTake(ctx context.Context, f *os.File, name string) (seen *looked, sums *content.Sums, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var looking sync.WaitGroup
	var unusable error
	looking.Go(func() {
		if seen, unusable = e.lookInto(ctx, f); unusable != nil {
			cancel(unusable)
		}
	})
	sums, err = e.take(ctx, name, f)
	looking.Wait()
	return seen, sums, cmp.Or(unusable, err)
}

// unpack gives the raw image in a file.
func (e *Engine) unpack(ctx context.Context, run *store.Workspace, f *os.File, s source) (*format.Image, error) {
	o := format.Options{Room: e.room(ctx), Progress: e.progress("unpack")}
	if s.of.AllowBacking && s.origin == nil {
		o.Beside = filepath.Dir(s.f.Name())
	}
	return format.Open(ctx, f, run.Path(""), o)
}

// publishBase gives a base its name, and what is known of the file that it was made of.
// The same bytes may have come of another file before, or meanwhile: then that base is
// it, and b becomes its record.
func (e *Engine) publishBase(
	ctx context.Context, b *record.Base, tmp string, sums *content.Sums, origin func(*record.Base),
) error {
	unlock, err := e.Store.Lock(ctx, "base-"+b.Digest)
	if err != nil {
		return err
	}
	defer unlock()
	made := *b
	err = e.Store.Update(ctx, store.Bases, b.Digest, b, func() error {
		origin(b)
		return nil
	})
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	list, err := sums.MarshalBinary()
	if err != nil {
		return err
	}
	*b = made
	origin(b)
	return e.Store.Publish(ctx, tmp, store.Bases, b.Digest, b, map[string][]byte{"sums": list})
}

// maxExtents is in how many pieces an image may lie on the disk. The kernel goes
// through all of them for each layer, at a dozen microseconds each, and no signal
// ends that.
const maxExtents = 1 << 19

// take makes a new file with the bytes of f, and sums them: by reflink on one
// filesystem, else by a sparse copy.
func (e *Engine) take(ctx context.Context, name string, f *os.File) (_ *content.Sums, err error) {
	if err := checkExtents(ctx, f, maxExtents); err != nil {
		return nil, err
	}
	out, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	err = reflink.Clone(out, f)
	if err == nil {
		return content.Sum(ctx, out, e.progress("digest"))
	}
	if !errors.Is(err, reflink.ErrUnsupported) {
		return nil, err
	}
	if err := e.roomFor(ctx, f); err != nil {
		return nil, err
	}
	sums, err := content.Copy(ctx, out, f, e.progress("copy"))
	if err != nil {
		return nil, err
	}
	return sums, checkExtents(ctx, out, maxExtents)
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

// openRaw opens a raw image file that the user named.
func openRaw(file string) (*os.File, error) {
	f, err := openImage(file)
	if err != nil {
		return nil, err
	}
	is, err := format.Of(f)
	if err == nil && is != "" {
		err = fault.New(fault.Image, "imgmut import "+file+" NAME makes a base of it, and "+
			"imgmut doctor NAME says what is in that", "it is %s, not a raw image", is)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openImage opens an image file that the user named. It looks before it
// opens: to open a device can do something, and a pipe waits for its other end.
// If the file becomes one under its eyes, it does not wait.
func openImage(file string) (*os.File, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fault.New(fault.Image, "give the path of a disk image", "not a regular file")
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
