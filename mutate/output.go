package mutate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/recipes"
)

// checkOutput refuses before any work what could not be written after it, and
// what the user would be sorry for.
func checkOutput(output string, base recipes.Base) error {
	if output == "" {
		return nil
	}
	fi, err := os.Stat(output)
	if errors.Is(err, fs.ErrNotExist) {
		fi, err = os.Stat(filepath.Dir(output))
		if err != nil || !fi.IsDir() {
			return fmt.Errorf("output %s: %w: there is no directory %s", output, ErrUsage, filepath.Dir(output))
		}
		return nil
	}
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("output %s: %w: it is there, and no regular file", output, ErrUsage)
	}
	if b, err := os.Stat(base.Path); err == nil && os.SameFile(fi, b) {
		return fmt.Errorf("output %s: %w: it is the base of the recipe", output, ErrUsage)
	}
	return nil
}

// writeOutput writes a copy of the image, writable and the caller's own: by
// reflink on the store's filesystem, else sparsely.
func (e *Engine) writeOutput(ctx context.Context, a *Applied, output string) (string, error) {
	output, err := filepath.Abs(output)
	if err != nil {
		return "", err
	}
	e.phase("write " + output)
	return output, e.place(ctx, a, output, func(out, in *os.File) error {
		err := reflink.Clone(out, in)
		if errors.Is(err, reflink.ErrUnsupported) {
			err = reflink.Copy(ctx, out, in, e.progress("copy"))
		}
		return err
	})
}

// place makes a file outside of the store that fill fills from the image's: it
// has its name when it is whole.
func (e *Engine) place(ctx context.Context, a *Applied, target string, fill func(out, in *os.File) error) (err error) {
	run, err := e.Store.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	in, err := os.Open(e.imagePath(a.Name))
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := run.Outside(filepath.Dir(target))
	if err != nil {
		return &placeError{target, err}
	}
	defer out.Close() // Double Close is harmless.
	if err := errors.Join(fill(out, in), out.Chmod(0o644)); err != nil {
		return &placeError{target, err}
	}
	if err := run.Deliver(out, target); err != nil {
		return &placeError{target, err}
	}
	return nil
}

// placeError says that an image is finished, but that it could not be put where
// it was wanted as well.
type placeError struct {
	target string
	err    error
}

func (e *placeError) Error() string { return fmt.Sprintf("write %s: %v", e.target, e.err) }

func (e *placeError) Unwrap() error { return e.err }

// Hint is about the place and not, as elsewhere, about the store.
func (e *placeError) Hint() string {
	if errors.Is(e.err, syscall.ENOSPC) {
		return "make room in " + filepath.Dir(e.target) + ", or choose another place; the image itself is in the store"
	}
	return ""
}
