package bootc

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/ostree"
	"github.com/imgmut/imgmut/mutate/tool"
)

// An import does not sync each object. If the machine loses its power meanwhile, there are
// objects with the right name and nothing in them, and the next import would trust them. So
// a mark is on the disk before anything else is, until all of it is. If one is found, what
// no record is of is removed: records are written when what they are of is on the disk.

func (r *Repository) mark() string { return filepath.Join(r.Dir, "importing") }

// begin puts the mark on the disk.
func (r *Repository) begin() error {
	f, err := os.Create(r.mark())
	if err != nil {
		return err
	}
	err = errors.Join(f.Sync(), f.Close())
	dir, openErr := os.Open(r.Dir)
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	return errors.Join(err, dir.Sync(), dir.Close())
}

// mend removes what an import left that was interrupted, if one was.
func (r *Repository) mend(ctx context.Context) error {
	if _, err := os.Stat(r.mark()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = r.clear()
		}
		return err
	}
	r.Phase("remove what an import left that was interrupted")
	if err := r.clear(); err != nil {
		return err
	}
	kept, err := r.recorded()
	if err != nil {
		return err
	}
	if len(kept) > 0 {
		err = r.prune(ctx, kept)
		var broken *tool.ExitError
		if !errors.As(err, &broken) || ctx.Err() != nil {
			return err
		}
		// ostree cannot make do with what is there. All of it can be made anew.
	}
	return os.RemoveAll(r.Dir)
}

// recorded gives the names of the commits that there are records of.
func (r *Repository) recorded() (map[string]bool, error) {
	names := map[string]bool{}
	for kind, prefix := range kinds {
		entries, err := os.ReadDir(filepath.Join(r.Dir, kind))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if name, ok := strings.CutSuffix(e.Name(), ".json"); ok {
				names[prefix+name] = true
			}
		}
	}
	return names, nil
}

// prune removes all names of commits but those that are kept, and what no commit with a
// name needs. That all is on the disk then, the mark is gone.
func (r *Repository) prune(ctx context.Context, kept map[string]bool) (err error) {
	for _, prefix := range kinds {
		dir := filepath.Join(r.Dir, "ostree/repo/refs/heads", prefix)
		// ostree would want to know first which commits they are of, and one that was
		// interrupted may be of none.
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if kept[prefix+e.Name()] {
				continue
			}
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	root, err := mount.Directory(r.Dir, false)
	if err != nil {
		return err
	}
	defer root.Close()
	s, err := ostree.Open(ostree.Options{Root: root})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if _, err := s.Run(ctx, "remove what no container image needs", nil, "prune", repo, "--refs-only"); err != nil {
		return err
	}
	return r.written(s)
}

// written makes all be on the disk, and takes the mark away.
func (r *Repository) written(s *ostree.Sysroot) error {
	if err := s.Sync(); err != nil {
		return err
	}
	if err := os.Remove(r.mark()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
