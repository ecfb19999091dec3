// Package remote fetches images from the network: by http, or from an OCI registry.
//
// The network lies, and breaks off. What is fetched is a file whose sum was known before
// ([File]): from the user, from a list that its publisher signed ([Fetcher.Sums]), or from
// the manifest of a registry ([Fetcher.Artifact]). Until it has that sum it has no name. A
// transfer that breaks off goes on where it was, in this run or a later one; what was
// fetched before is summed again, not trusted.
//
// How much comes, and how fast, is up to a stranger. So the room is asked for before it
// is taken, and a server that sends nothing for a while is given up.
package remote

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/fault"
)

// Fetcher fetches files.
type Fetcher struct {
	// Proxy says by which proxy a request goes, as in [http.Transport].
	Proxy func(*http.Request) (*url.URL, error)
	// Room is asked before that many bytes are written to the disk.
	Room func(bytes int64) error
	// Progress is told the bytes done and the bytes there are to do, 0 if nobody knows.
	Progress func(done, total int64)
	// Note is told what the user should know, a line each.
	Note func(string)

	once sync.Once
	http *http.Client
}

// File is one to fetch, with what it must be.
type File struct {
	URL            string
	SHA256, SHA512 string // in lower-case hex; one is enough
	open           opener // nil for a URL of http
}

// opener gives what a file holds from byte have on, if it is still the one that has the
// mark, or else all of it.
type opener func(ctx context.Context, have int64, mark string) (*answer, error)

// answer is a file, or its end.
type answer struct {
	body  io.ReadCloser
	at    int64  // where in the file it begins
	total int64  // bytes of the whole file, -1 if that was not said
	mark  string // of the file
}

const (
	tries   = 5 // in a row that get nowhere
	pause   = 100 * time.Millisecond
	silence = 1 * time.Minute // after which a server is given up
	maxSize = 64 << 40        // bytes
)

// final is an error that another try would not mend.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// Get fetches a file into part, which is made, or holds the beginning of it from an
// earlier time. It is the whole file, on the disk, when there is no error. Else part has
// what came so far, or is gone, if that was wrong. Beside it is a file with [MarkEnd].
func (f *Fetcher) Get(ctx context.Context, file File, part string) error {
	out, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	t := transfer{Fetcher: f, file: file, out: out, markFile: part + MarkEnd}
	if t.open = file.open; t.open == nil {
		t.open = f.openHTTP(file.URL)
	}
	if err = t.begin(ctx); err == nil {
		err = t.run(ctx)
	}
	if err != nil {
		err = fmt.Errorf("fetch %s: %w", Shown(file.URL), err)
		if t.have == 0 {
			err = errors.Join(err, remove(part), remove(t.markFile))
		}
		return err
	}
	return out.Sync()
}

// MarkEnd is how the name of a file ends that says of what another is a part.
const MarkEnd = ".mark"

// transfer is a file that is being fetched.
type transfer struct {
	*Fetcher
	file     File
	open     opener
	out      *os.File
	have     int64
	most     int64  // of have so far
	resumed  bool   // of what is there, something is from an earlier run
	mark     string // of the version of the file that it is of
	markFile string
	of256    hash.Hash
	of512    hash.Hash
}

// begin sums what is there already.
func (t *transfer) begin(ctx context.Context) error {
	b, err := os.ReadFile(t.markFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	t.mark, t.of256, t.of512 = string(b), sha256.New(), sha512.New()
	fi, err := t.out.Stat()
	if err != nil {
		return err
	}
	if t.mark == "" {
		return t.restart() // nobody knows what it is of
	}
	in := io.NewSectionReader(t.out, 0, fi.Size())
	if t.have, err = io.Copy(io.MultiWriter(t.of256, t.of512), content.Reader(ctx, in, func(int) {})); err != nil {
		return err
	}
	t.resumed = t.have > 0
	return nil
}

// restart forgets what was fetched.
func (t *transfer) restart() error {
	t.have, t.resumed = 0, false
	t.of256.Reset()
	t.of512.Reset()
	return t.out.Truncate(0)
}

// run fetches the file, in as many pieces as the network makes of it.
func (t *transfer) run(ctx context.Context) error {
	if t.resumed && t.check() == nil {
		return nil // it was all there
	}
	err := t.persist(ctx, func() (further bool, err error) {
		before := t.most // a file that changes all the time begins again and again
		err = t.piece(ctx)
		t.most = max(t.most, t.have)
		return t.most > before, err
	})
	if err != nil {
		return err
	}
	err = t.check()
	switch {
	case err == nil:
		return nil
	case t.resumed:
		t.Note("what was here of it is not of that file: it is fetched again")
		if err := t.restart(); err != nil {
			return err
		}
		return t.run(ctx)
	}
	return errors.Join(err, t.restart())
}

// persist tries something until it succeeds, or fails for good, or gets nowhere for some
// time.
func (f *Fetcher) persist(ctx context.Context, try func() (further bool, err error)) error {
	for failed := 1; ; failed++ {
		further, err := try()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if further {
			failed = 1
		}
		var never final
		if err == nil || errors.As(err, &never) || failed == tries {
			return err
		}
		f.Note(fmt.Sprintf("%v; trying again", err))
		select {
		case <-time.After(pause << failed):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// check compares the file with the sums that it must have.
func (t *transfer) check() error {
	for _, s := range []struct{ name, is, want string }{
		{"sha256", hex.EncodeToString(t.of256.Sum(nil)), t.file.SHA256},
		{"sha512", hex.EncodeToString(t.of512.Sum(nil)), t.file.SHA512},
	} {
		if s.want != "" && s.is != s.want {
			return fault.New(fault.Image, "see whether its publisher has changed it, and what sum it has now",
				"its %s is %s, and it should be %s", s.name, s.is, s.want)
		}
	}
	return nil
}

// piece fetches what is missing, or some of it.
func (t *transfer) piece(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(silence, func() { cancel(errors.New("nothing came for a minute")) })
	defer quiet.Stop()
	a, err := t.open(ctx, t.have, t.mark)
	if err != nil {
		return said(ctx, err)
	}
	defer a.body.Close()
	if a.at != t.have {
		if err := t.restart(); err != nil {
			return final{err}
		}
	}
	if t.mark = a.mark; t.have == 0 {
		if err := os.WriteFile(t.markFile, []byte(t.mark), 0o600); err != nil {
			return final{err}
		}
	}
	if a.total > maxSize {
		return final{fault.New(fault.Image, "", "it has %d bytes, and no image has more than %d", a.total, int64(maxSize))}
	}
	if err := t.Room(max(0, a.total-t.have)); err != nil {
		return final{err}
	}
	return said(ctx, t.copy(a.body, a.total, quiet))
}

// copy appends a body to what is there.
func (t *transfer) copy(body io.Reader, total int64, quiet *time.Timer) error {
	const often = 256 << 20
	buf := make([]byte, 1<<20)
	for {
		n, err := body.Read(buf)
		quiet.Reset(silence)
		if _, err := t.out.WriteAt(buf[:n], t.have); err != nil {
			return final{err}
		}
		t.of256.Write(buf[:n])
		t.of512.Write(buf[:n])
		old := t.have
		t.have += int64(n)
		t.Progress(t.have, max(0, total))
		switch {
		case total >= 0 && t.have > total, t.have > maxSize:
			return final{fault.New(fault.Image, "", "more comes than the %d bytes that were announced", total)}
		case err == io.EOF && t.have < total:
			return fmt.Errorf("it broke off after %d of %d bytes", t.have, total)
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("after %d bytes: %w", t.have, err)
		case total < 0 && old/often != t.have/often:
			if err := t.Room(often); err != nil { // perhaps it has no end at all: do not keep that
				return final{errors.Join(err, t.restart())}
			}
		}
	}
}

// said is the cause of the context, if that has ended, in place of what came of it.
func said(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// remove removes a file that may not be there.
func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
