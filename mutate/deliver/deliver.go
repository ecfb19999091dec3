// Package deliver puts a finished image where others look for it: a file of the
// user's, machined's pool.
//
// Such a place is a [Target]. The image itself is in the store already, and
// stays there if a delivery fails. Places belong to others: what somebody else
// put there is never replaced, a name appears only when the file is whole, and
// what a killed process left half made is found and removed by the next run.
// What imgmut puts into machined's pool it can take back ([Target.Take]): that is
// written down in the image's record before the file is there. A file that the
// user named is the user's from then on, and stays when the image is removed.
package deliver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

// Target is a place where others look for images.
type Target interface {
	// Check finds out before any work what the place would refuse after it.
	Check(ctx context.Context, name string) error
	// Has says whether the place has this very image, without starting anything.
	Has(i *record.Image) bool
	// Put puts the image there, whole or not at all, and gives its path there.
	// It brings i, and the image's record, up to date.
	Put(ctx context.Context, i *record.Image) (path string, err error)
	// Take takes back what Put has put there, unless that is the user's own since
	// then. It is no error if it is gone.
	Take(ctx context.Context, i *record.Image) error
}

// Source is where images are delivered from, and what is told of the work.
type Source struct {
	Store    *store.Store
	Phase    func(text string) // something begins
	Note     func(text string) // something the user should know
	Progress func(what string) func(done, total int64)
}

// hidden is the pattern of files that have no name yet. machined passes over
// names that begin with ".#" (systemd's discover-image.c).
const hidden = ".#imgmut-*"

// place makes a file outside of the store: fill fills it from the image's, and
// it gets its name when it is whole and proven. pattern is that of
// [store.Workspace.Outside]; prove may be nil.
func (s Source) place(
	ctx context.Context, image, target, pattern string, fill, prove func(out, in *os.File) error,
) (err error) {
	run, err := s.Store.Begin(ctx)
	if err != nil {
		return placeError(target, err)
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	in, err := os.Open(s.Store.Path(store.Images, image, "raw"))
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := run.Outside(filepath.Dir(target), pattern)
	if err != nil {
		return placeError(target, err)
	}
	defer out.Close() // Double Close is harmless.
	if err := fill(out, in); err != nil {
		return placeError(target, err)
	}
	if prove != nil {
		if err := prove(out, in); err != nil {
			return err
		}
	}
	if err := run.Deliver(out, target); err != nil {
		return placeError(target, err)
	}
	return nil
}

// placeError says that an image is finished, but that it could not be put where
// it was wanted as well. Its mend is about the place and not, as elsewhere,
// about the store.
func placeError(target string, err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		mend := "make room in " + filepath.Dir(target) + ", or choose another place; the image itself is in the store"
		return fault.New(fault.Host, mend, "write %s: %w", target, err)
	}
	return fmt.Errorf("write %s: %w", target, err)
}
