package mutate

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/lock"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// ownMark is the extended attribute on files in machined's pool that imgmut
// put there: the image's digest and the store it is from. Others are never
// replaced, nor are those of other stores.
const ownMark = "user.imgmut"

func (e *Engine) mark(digest string) string { return digest + " " + e.Store.Root() }

// checkPool finds out before any work that the name is somebody else's in
// machined's pool.
func (e *Engine) checkPool(ctx context.Context, r *recipes.Recipe) error {
	if !r.Register.Machined {
		return nil
	}
	_, target, err := e.poolFile(ctx, r.Name)
	if err == nil {
		_, err = e.readMark(target)
	}
	if err != nil {
		return fmt.Errorf("register %s with machined: %w", r.Name, err)
	}
	return nil
}

// poolFile is where an image of that name is in machined's pool.
func (e *Engine) poolFile(ctx context.Context, name string) (Host, string, error) {
	h, err := e.Host(ctx)
	if err != nil {
		return nil, "", err
	}
	pool, err := h.PoolPath(ctx)
	return h, filepath.Join(pool, name+".raw"), err
}

// register publishes the image in machined's pool if the recipe asks for it,
// unless it is there already.
func (e *Engine) register(ctx context.Context, r *recipes.Recipe, a *Applied) error {
	if !r.Register.Machined {
		return nil
	}
	if a.PoolFile != nil && a.PoolFile.Digest == a.Digest {
		if id, err := content.IDOfPath(a.PoolFile.Path); err == nil && id.SameFile(a.PoolFile.ID) {
			return nil // and no host need be started to say so
		}
	}
	e.phase("register with machined")
	h, target, err := e.poolFile(ctx, a.Name)
	if err == nil {
		err = e.publishIn(ctx, h, target, a)
	}
	if err != nil {
		return fmt.Errorf("register %s with machined: %w", a.Name, err)
	}
	id, err := content.IDOfPath(target)
	if err != nil {
		return err
	}
	return e.Store.Update(ctx, store.Images, a.Name, &a.Image, func() error {
		a.PoolFile = &record.PoolFile{Path: target, Digest: a.Digest, ID: id}
		return nil
	})
}

// publishIn puts the image into the pool and has machined prove that it can
// read it. A reflink that machined cannot read becomes a copy: systemd 252 on
// Linux 6.14 and later sees no partitions on a reflinked XFS file.
func (e *Engine) publishIn(ctx context.Context, h Host, target string, a *Applied) error {
	unlock, err := e.lockMachine(ctx, "pool-"+a.Name, "registers an image of that name") // other stores have the same pool
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := e.readMark(target); err != nil {
		return err
	}
	var unread error
	for _, cloning := range []bool{true, false} {
		err := e.fillPool(ctx, target, a, cloning)
		if cloning && errors.Is(err, reflink.ErrUnsupported) {
			continue
		}
		if err != nil {
			return err
		}
		if _, unread = h.ImageOSRelease(ctx, a.Name); unread == nil {
			return nil
		}
	}
	return errors.Join(unread, os.Remove(target))
}

// notOurs says that machined's pool has an image of that name which was not put
// there from this store, but from another, or by somebody else if that is "".
func notOurs(path, name, other string) error {
	mend := "rename it or remove it with machinectl remove " + name + ", or give the recipe another name"
	if other != "" {
		return fault.New(fault.Usage, mend, "%s is there, from another store: %s", path, other)
	}
	return fault.New(fault.Usage, mend, "%s is there, and imgmut did not put it there", path)
}

// readMark gives the digest of the image that was put at a path from this
// store, "" if nothing is there.
func (e *Engine) readMark(path string) (digest string, err error) {
	buf := make([]byte, 4096+sha256.Size*2)
	n, err := unix.Lgetxattr(path, ownMark, buf)
	name := strings.TrimSuffix(filepath.Base(path), ".raw")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err == unix.ENODATA, err == unix.ENOTSUP:
		return "", notOurs(path, name, "")
	case err != nil:
		return "", fmt.Errorf("read %s of %s: %w", ownMark, path, err)
	}
	digest, root, _ := strings.Cut(string(buf[:n]), " ")
	if root != e.Store.Root() {
		return "", notOurs(path, name, root)
	}
	return digest, nil
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
		if err := unix.Fsetxattr(int(out.Fd()), ownMark, []byte(e.mark(a.Digest)), 0); err != nil {
			return fmt.Errorf("mark %s: %w", out.Name(), err)
		}
		return nil
	})
}

// lockMachine takes a lock of the whole machine, and tells the user if that means
// to wait, for which reason.
func (e *Engine) lockMachine(ctx context.Context, name, reason string) (unlock func(), err error) {
	return lock.Machine(ctx, name, func() { e.note("waiting: another imgmut " + reason) })
}
