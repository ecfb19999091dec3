package mutate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// ownMark is the extended attribute on files in machined's pool that imgmut
// put there, with the image's digest. Others are never replaced.
const ownMark = "user.imgmut"

// register publishes the image in machined's pool if the recipe asks for it,
// unless it is there already.
func (e *Engine) register(ctx context.Context, r *recipes.Recipe, a *Applied) error {
	if !r.Register.Machined {
		return nil
	}
	if a.PoolFile != "" {
		if mark, err := readMark(a.PoolFile); err == nil && mark == a.Digest {
			return nil // and no host need be started to say so
		}
	}
	e.phase("register with machined")
	h, err := e.Host(ctx)
	if err != nil {
		return err
	}
	pool, err := h.PoolPath(ctx)
	if err != nil {
		return err
	}
	target := filepath.Join(pool, a.Name+".raw")
	if err := e.publishIn(ctx, h, target, a); err != nil {
		return fmt.Errorf("register %s with machined: %w", a.Name, err)
	}
	return e.Store.Update(ctx, store.Images, a.Name, &a.Image, func() error {
		a.PoolFile = target
		return nil
	})
}

// publishIn puts the image into the pool and has machined prove that it can
// read it. A reflink that machined cannot read becomes a copy: systemd 252 on
// Linux 6.14 and later sees no partitions on a reflinked XFS file.
func (e *Engine) publishIn(ctx context.Context, h Host, target string, a *Applied) error {
	mark, err := readMark(target)
	if err != nil {
		return err
	}
	if mark == a.Digest {
		if _, err := h.ImageOSRelease(ctx, a.Name); err == nil {
			return nil
		}
	}
	for _, cloning := range []bool{true, false} {
		err := e.fillPool(ctx, target, a, cloning)
		if errors.Is(err, reflink.ErrUnsupported) {
			continue
		}
		if err != nil {
			return err
		}
		if _, err = h.ImageOSRelease(ctx, a.Name); err == nil {
			return nil
		}
		if !cloning {
			return errors.Join(err, os.Remove(target))
		}
	}
	return nil
}

// NotOursError says that machined's pool has an image of that name which
// imgmut did not make.
type NotOursError struct{ Path, Name string }

func (e *NotOursError) Error() string {
	return fmt.Sprintf("%s is there, and imgmut did not put it there", e.Path)
}

// Hint is how to make room.
func (e *NotOursError) Hint() string {
	return "rename it or remove it with machinectl remove " + e.Name + ", or give the recipe another name"
}

// readMark gives the digest of the image that imgmut put at a path, or "" if
// nothing is there.
func readMark(path string) (string, error) {
	buf := make([]byte, 256)
	n, err := unix.Lgetxattr(path, ownMark, buf)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err == unix.ENODATA, err == unix.ENOTSUP:
		name := filepath.Base(path)
		return "", &NotOursError{path, name[:len(name)-len(".raw")]}
	case err != nil:
		return "", fmt.Errorf("read %s of %s: %w", ownMark, path, err)
	}
	return string(buf[:n]), nil
}

// fillPool makes the file in the pool.
func (e *Engine) fillPool(ctx context.Context, target string, a *Applied, cloning bool) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	return e.place(ctx, a, target, func(out, in *os.File) error {
		var err error
		if cloning {
			err = reflink.Clone(out, in)
		} else {
			err = reflink.Copy(ctx, out, in, e.progress("copy to "+filepath.Dir(target)))
		}
		if err != nil {
			return err
		}
		if err := unix.Fsetxattr(int(out.Fd()), ownMark, []byte(a.Digest), 0); err != nil {
			return fmt.Errorf("mark %s: %w", out.Name(), err)
		}
		return nil
	})
}
