package refs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/fault"
)

// How much of a volume is looked into, because a stranger may have filled it. A
// system has some dozens of such files, of some kilobytes.
const (
	maxEntries = 4096     // of a directory
	maxTotal   = 32 << 20 // bytes of all text files
	maxFiles   = 1024     // of each sort
)

func tooMuch(format string, args ...any) error {
	return fault.New(fault.Image, "make it smaller, or remove what is not needed", format, args...)
}

// eachText visits the text files that may name volumes.
func (f Files) eachText(ctx context.Context, visit func(name, text string) error) error {
	total := int64(0)
	return f.each(ctx, refFiles, func(name string) error {
		fi, err := fs.Stat(f.FS, name)
		if err != nil || !fi.Mode().IsRegular() {
			return nil // a dangling link, a pipe
		}
		if fi.Size() > etc.MaxText {
			return tooMuch("%s has %d bytes, too many to look for the volumes that it names", name, fi.Size())
		}
		if total += fi.Size(); total > maxTotal {
			return tooMuch("the files that may name volumes, up to %s, have more than %d MiB", name, maxTotal>>20)
		}
		return visit(name, etc.Read(f.FS, name))
	})
}

// eachUKI visits the unified kernel images that have a command line.
func (f Files) eachUKI(ctx context.Context, visit func(name string, u uki) error) error {
	return f.each(ctx, ukiFiles, func(name string) error {
		if u := readUKI(f.FS, name); len(u.lines) > 0 {
			return visit(name, u)
		}
		return nil
	})
}

// each visits the files that patterns name.
func (f Files) each(ctx context.Context, patterns []string, visit func(name string) error) error {
	n := 0
	for _, pattern := range patterns {
		names, err := f.glob(".", strings.Split(pattern, "/"))
		if err != nil {
			return err
		}
		if n += len(names); n > maxFiles {
			return tooMuch("there are more than %d files such as %s", maxFiles, pattern)
		}
		for _, name := range names {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := visit(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// glob is [fs.Glob] below dir, in bounds, and without letter case on FAT. What
// cannot be read is not there.
func (f Files) glob(dir string, parts []string) ([]string, error) {
	pattern, more := parts[0], parts[1:]
	var names []string
	if f.FAT || strings.ContainsAny(pattern, "*?[") {
		entries, err := f.list(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if ok, _ := path.Match(f.fold(pattern), f.fold(e)); ok {
				names = append(names, path.Join(dir, e))
			}
		}
	} else if name := path.Join(dir, pattern); etc.Exists(f.FS, name) {
		names = []string{name}
	}
	if len(more) == 0 {
		return names, nil
	}
	var all []string
	for _, name := range names {
		below, err := f.glob(name, more)
		if err != nil {
			return nil, err
		}
		all = append(all, below...)
	}
	return all, nil
}

func (f Files) fold(name string) string {
	if f.FAT {
		return strings.ToLower(name)
	}
	return name
}

// list gives the names in a directory, sorted, none if it is no directory.
func (f Files) list(dir string) ([]string, error) {
	if fi, err := fs.Stat(f.FS, dir); err != nil || !fi.IsDir() {
		return nil, nil
	}
	names, err := etc.ReadDir(f.FS, dir, maxEntries)
	if errors.Is(err, etc.ErrTooMany) {
		return nil, tooMuch("the directory %s has more than %d entries", dir, maxEntries)
	}
	if err != nil {
		return nil, fmt.Errorf("look for files that name volumes: %w", err)
	}
	return names, nil
}
