package deliver

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
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/store"
)

// Host is what delivering to machined needs of the machine.
type Host interface {
	// PoolPath is the directory where machined looks for images.
	PoolPath(ctx context.Context) (string, error)
	// ImageOSRelease has machined read the os-release file of an image in its
	// pool, which proves that it can be found and read.
	ImageOSRelease(ctx context.Context, name string) (map[string]string, error)
}

// Machined is machined's pool, in which every program of systemd finds images.
type Machined struct {
	Source
	// Host opens the host when it is needed.
	Host func(ctx context.Context) (Host, error)
}

// ownMark is the extended attribute on files in machined's pool that imgmut put
// there: the image's digest and the store it is from. Files without it are never
// replaced, nor are those of other stores.
const ownMark = "user.imgmut"

func (m Machined) mark(digest string) string { return digest + " " + m.Store.Root() }

// Check implements [Target]: the name may be somebody else's.
func (m Machined) Check(ctx context.Context, name string) error {
	_, target, err := m.target(ctx, name)
	if err == nil {
		_, err = m.readMark(target)
	}
	if err != nil {
		return fmt.Errorf("register %s with machined: %w", name, err)
	}
	return nil
}

// target is where an image of that name is in the pool.
func (m Machined) target(ctx context.Context, name string) (Host, string, error) {
	h, err := m.Host(ctx)
	if err != nil {
		return nil, "", err
	}
	pool, err := h.PoolPath(ctx)
	return h, filepath.Join(pool, name+".raw"), err
}

// Has implements [Target].
func (m Machined) Has(i *record.Image) bool {
	if i.PoolFile == nil || i.PoolFile.Digest != i.Digest {
		return false
	}
	id, err := content.IDOfPath(i.PoolFile.Path)
	return err == nil && id.SameFile(i.PoolFile.ID)
}

// Put implements [Target]. machined reads the image before it gets its name, so
// that the one which was registered before is there until then.
func (m Machined) Put(ctx context.Context, i *record.Image) (string, error) {
	m.Phase("register with machined")
	h, target, err := m.target(ctx, i.Name)
	if err == nil {
		err = m.put(ctx, h, target, i)
	}
	if err != nil {
		return "", fmt.Errorf("register %s with machined: %w", i.Name, err)
	}
	return target, nil
}

func (m Machined) put(ctx context.Context, h Host, target string, i *record.Image) error {
	unlock, err := m.lock(ctx, i.Name)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := m.readMark(target); err != nil {
		return err
	}
	before := i.PoolFile
	// Recorded before it is there, so that removing the image finds it even if
	// this process is killed now.
	if err := m.remember(ctx, i, &record.PoolFile{Path: target, Digest: i.Digest}); err != nil {
		return err
	}
	if err := m.fill(ctx, h, target, i); err != nil {
		return errors.Join(err, m.forget(context.WithoutCancel(ctx), target, i, before))
	}
	id, err := content.IDOfPath(target)
	if err != nil {
		return err
	}
	return m.remember(ctx, i, &record.PoolFile{Path: target, Digest: i.Digest, ID: id})
}

// forget writes down what was in the pool before, after a failure. The file may
// have got its name all the same, if what failed came after that: then it stays
// recorded, or removing the image would leave it.
func (m Machined) forget(ctx context.Context, target string, i *record.Image, before *record.PoolFile) error {
	if digest, err := m.readMark(target); err != nil || digest == i.Digest {
		return nil // an error is no proof either
	}
	return m.remember(ctx, i, before)
}

// remember writes down what is in the pool, or about to be.
func (m Machined) remember(ctx context.Context, i *record.Image, f *record.PoolFile) error {
	return m.Store.Update(ctx, store.Images, i.Name, i, func() error {
		i.PoolFile = f
		return nil
	})
}

// lock keeps others from the name in the pool, which all stores share.
func (m Machined) lock(ctx context.Context, name string) (unlock func(), err error) {
	return lock.Machine(ctx, "pool-"+name, func() { m.Note("waiting: another imgmut registers an image of that name") })
}

// inPool is the pattern of files in the pool that have no name yet. machined
// lists no image whose name begins with a dot, but reads it when asked to.
const inPool = ".imgmut-*.raw"

// fill makes the file in the pool. A reflink that machined cannot read becomes a
// copy: systemd 252 on Linux 6.14 and later sees no partitions on a reflinked
// XFS file.
func (m Machined) fill(ctx context.Context, h Host, target string, i *record.Image) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	err := m.Source.place(ctx, i.Name, target, inPool, func(out, in *os.File) error {
		return errors.Join(reflink.Clone(out, in), m.setMark(out, i))
	}, m.prove(ctx, h, i))
	var unread *unreadError
	if !errors.Is(err, reflink.ErrUnsupported) && !errors.As(err, &unread) {
		return err
	}
	return m.Source.place(ctx, i.Name, target, inPool, func(out, in *os.File) error {
		return errors.Join(reflink.Copy(ctx, out, in, m.Progress("copy to "+filepath.Dir(target))), m.setMark(out, i))
	}, m.prove(ctx, h, i))
}

func (m Machined) setMark(f *os.File, i *record.Image) error {
	if err := unix.Fsetxattr(int(f.Fd()), ownMark, []byte(m.mark(i.Digest)), 0); err != nil {
		return fmt.Errorf("mark %s: %w", f.Name(), err)
	}
	return nil
}

// unreadError says that machined cannot read an image.
type unreadError struct{ error }

func (e *unreadError) Unwrap() error { return e.error }

// prove has machined read the file in its pool. It mounts the image, which must
// not ask the kernel to panic meanwhile.
func (m Machined) prove(ctx context.Context, h Host, i *record.Image) func(out, in *os.File) error {
	return func(out, in *os.File) error {
		var base record.Base
		if err := m.Store.Load(store.Bases, i.Base, &base); err != nil {
			return err
		}
		if err := base.Layout.Disarm(out); err != nil {
			return err
		}
		if err := m.read(ctx, h, &base, out.Name()); err != nil {
			return err
		}
		return base.Layout.Rearm(out, in)
	}
}

// read has machined read a file of its pool. It mounts the image, like
// systemd-nspawn, so nobody else may have a fork of it mounted meanwhile.
func (m Machined) read(ctx context.Context, h Host, base *record.Base, path string) error {
	unlock, err := mount.Claim{Filesystems: base.Layout.Filesystems(), Fork: path, Foreign: true, Note: m.Note}.Lock(ctx)
	if err != nil {
		return err
	}
	_, err = h.ImageOSRelease(ctx, strings.TrimSuffix(filepath.Base(path), ".raw"))
	unlock() // which waits until the kernel has let go of the file
	if err != nil {
		return &unreadError{err}
	}
	return mount.WaitReleased(ctx, path)
}

// Take implements [Target]. Another store's image of that name is not ours to
// remove.
func (m Machined) Take(ctx context.Context, i *record.Image) error {
	if i.PoolFile == nil {
		return nil
	}
	return m.take(ctx, i.Name, i.PoolFile.Path)
}

// TakeUnrecorded takes back what this store has put into the pool for an image
// whose record cannot be read. It looks where machined's pool usually is: to ask
// for it, a host would have to be started.
func (m Machined) TakeUnrecorded(ctx context.Context, name string) error {
	return m.take(ctx, name, filepath.Join("/var/lib/machines", name+".raw"))
}

func (m Machined) take(ctx context.Context, name, path string) error {
	unlock, err := m.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = m.readMark(path)
	var foreign *notOursError
	if errors.As(err, &foreign) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// notOursError says that machined's pool has an image of that name which was not
// put there from this store.
type notOursError struct{ error }

func (e *notOursError) Unwrap() error { return e.error }

// notOurs makes that error; other is the store that put it there, "" if somebody
// else did.
func notOurs(path, name, other string) error {
	mend := "rename it or remove it with machinectl remove " + name + ", or give the recipe another name"
	if other != "" {
		return &notOursError{fault.New(fault.Usage, mend, "%s is there, from another store: %s", path, other)}
	}
	return &notOursError{fault.New(fault.Usage, mend, "%s is there, and imgmut did not put it there", path)}
}

// readMark gives the digest of the image that was put at a path from this store,
// "" if nothing is there.
func (m Machined) readMark(path string) (digest string, err error) {
	buf := make([]byte, 4096+sha256.Size*2)
	n, err := unix.Lgetxattr(path, ownMark, buf)
	name := strings.TrimSuffix(filepath.Base(path), ".raw")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err == unix.ENODATA, err == unix.ENOTSUP:
		return "", notOurs(path, name, "")
	case err != nil:
		mend := "find out what is wrong with " + path + ", or remove it, and try again"
		return "", fault.New(fault.Host, mend, "read %s of %s: %w", ownMark, path, err)
	}
	digest, root, _ := strings.Cut(string(buf[:n]), " ")
	if root != m.Store.Root() {
		return "", notOurs(path, name, root)
	}
	return digest, nil
}
