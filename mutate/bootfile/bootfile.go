// Package bootfile gives what is inside the files by which a machine boots: the
// files of an initrd, whatever it is compressed by, the sections of a unified
// kernel image, the compressed core of GRUB.
//
// An initrd is what the kernel makes of it (Documentation/driver-api/early-userspace/
// buffer-format.rst): archives of cpio's form "newc", one after the other, each
// as it is or compressed, with zeros between them. Bytes that are none of that
// are given as they are, so that nothing of a file stays unseen; what cannot be
// seen (an unknown compression, a filesystem inside) is told.
//
// A stranger made these files. What they unpack to is counted and bounded, no
// more memory is taken than a kernel's initrd needs, and a decompressor that
// fails is the file's fault, never the program's.
package bootfile

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/imgmut/imgmut/mutate/compress"
)

// Visitor is told what is inside a file.
type Visitor struct {
	// Content gets each file inside, with its name, or a stretch of bytes that is
	// no file's, with "". A symbolic link's content is where it leads.
	Content func(name string, r io.Reader) error
	// Unread is told what cannot be looked into, and why.
	Unread func(name, why string)
}

// ErrTooLarge is the error for a file with more inside than is looked into.
var ErrTooLarge = errors.New("there is too much inside it")

// Budget is how many bytes may still be looked at, read and unpacked together.
// Several files may share one.
type Budget struct{ left atomic.Int64 }

// NewBudget makes a budget of that many bytes.
func NewBudget(bytes int64) *Budget {
	b := &Budget{}
	b.left.Store(bytes)
	return b
}

// Left is what was not taken of it.
func (b *Budget) Left() int64 { return b.left.Load() }

// take is [ErrTooLarge] if there is no more to take.
func (b *Budget) take(n int) error {
	if b.left.Add(-int64(n)) < 0 {
		return ErrTooLarge
	}
	return nil
}

const (
	// lookAhead is how much of a file is seen before it is decided what it is.
	lookAhead = 64 << 10
	// maxDepth is how often something compressed may be in something compressed.
	// The kernel looks no deeper than one.
	maxDepth = 2
	// maxArchives is how many archives a file may have inside, one after the other.
	maxArchives = 1024
)

// Walk gives what is inside a file, read from its first byte on, and takes what
// that costs from the budget. It is [ErrTooLarge] if there is more, and else what
// Content or the reading of the file fails with.
func Walk(ctx context.Context, r io.Reader, budget *Budget, v Visitor) error {
	w := &walker{Visitor: v, ctx: ctx, budget: budget}
	source := &source{w: w, r: r}
	in := bufio.NewReaderSize(source, lookAhead)
	head, _ := in.Peek(lookAhead)
	err := w.file(in, head)
	var damage *damageError
	switch {
	case source.err != nil:
		return source.err
	case errors.As(err, &damage):
		v.Unread("", damage.Error())
		return w.rest(in)
	}
	return err
}

type walker struct {
	Visitor
	ctx    context.Context
	budget *Budget
	depth  int
	count  int // archives so far
}

// file looks into a whole file, of which head is the beginning.
func (w *walker) file(in *bufio.Reader, head []byte) error {
	switch {
	case isPE(head):
		return w.pe(in, head)
	case isCore(head):
		return w.core(in, head)
	}
	return w.segments(in)
}

// rest gives what is left as it is.
func (w *walker) rest(in *bufio.Reader) error { return w.Content("", in) }

// segments looks into an initrd, from the beginning of one of its archives on.
func (w *walker) segments(in *bufio.Reader) error {
	for {
		if err := skipZeros(in); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if w.count++; w.count > maxArchives {
			return ErrTooLarge
		}
		head, _ := in.Peek(compress.HeadSize)
		var err error
		switch method := compress.Of(head); {
		case isCpio(head):
			err = w.cpio(in)
		case method.Name != "" && w.depth < maxDepth:
			err = w.unpack(in, method)
		default:
			return w.rest(in)
		}
		if err != nil {
			return err
		}
	}
}

// unpack looks into what is compressed.
func (w *walker) unpack(in *bufio.Reader, m compress.Method) error {
	plain, end, err := m.Open(in)
	switch {
	case errors.Is(err, compress.ErrUnknown):
		w.Unread("", "it is compressed by "+m.Name)
		return w.rest(in)
	case err != nil:
		return &damageError{m.Name, err}
	}
	defer end()
	w.depth++
	defer func() { w.depth-- }()
	out := &unpacked{w: w, name: m.Name, r: plain}
	if err := w.segments(bufio.NewReaderSize(out, lookAhead)); err != nil {
		return err
	}
	if out.bytes == 0 { // perhaps nothing was read either, which would go on for ever
		return &damageError{m.Name, errors.New("there is nothing in it")}
	}
	return nil
}

// skipZeros goes to the next byte that is not zero.
func skipZeros(in *bufio.Reader) error {
	for {
		if _, err := in.Peek(1); err != nil {
			return err
		}
		b, _ := in.Peek(in.Buffered())
		n := 0
		for n < len(b) && b[n] == 0 {
			n++
		}
		_, _ = in.Discard(n) // of what is buffered
		if n < len(b) {
			return nil
		}
	}
}

// damageError says that a file is not what its beginning says.
type damageError struct {
	what string
	err  error
}

func (e *damageError) Error() string {
	return fmt.Sprintf("it is damaged, or %s of a sort that is not read: %v", e.what, e.err)
}

func (e *damageError) Unwrap() error { return e.err }

// source is the file itself. What goes wrong with it is no fault of its content.
type source struct {
	w   *walker
	r   io.Reader
	err error
}

func (s *source) Read(b []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.w.ctx.Err() != nil {
		s.err = context.Cause(s.w.ctx)
		return 0, s.err
	}
	n, err := s.r.Read(b)
	if err != nil && err != io.EOF {
		s.err = err
	} else if e := s.w.budget.take(n); e != nil {
		s.err = e
		return 0, e
	}
	return n, err
}

// unpacked is what a decompressor gives. Any fault of it is the data's, but for the end
// of the budget.
type unpacked struct {
	w     *walker
	name  string
	r     io.Reader
	bytes int64
}

func (u *unpacked) Read(b []byte) (int, error) {
	if u.w.ctx.Err() != nil {
		return 0, context.Cause(u.w.ctx)
	}
	n, err := u.r.Read(b)
	u.bytes += int64(n)
	if e := u.w.budget.take(n); e != nil {
		return 0, e
	}
	if err != nil && err != io.EOF {
		err = &damageError{u.name, err}
	}
	return n, err
}
