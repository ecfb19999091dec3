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
	"github.com/imgmut/imgmut/mutate/uki"
)

// How much of a volume is looked into, because a stranger may have filled it. A
// system has some dozens of such files, of some kilobytes.
const (
	maxEntries = 4096     // of a directory
	maxNames   = 1 << 20  // looked at in all directories, for files of each sort
	maxTotal   = 32 << 20 // bytes of all text files
	maxFiles   = 1024     // of each sort
	maxOther   = 1 << 20  // bytes of a text that has no name of its own
)

// ErrTooMuch is what an error [errors.Is] if a volume has more than is looked into.
var ErrTooMuch = errors.New("there is too much to look into")

// excess is an error that is ErrTooMuch, in words of its own.
type excess struct{ error }

// Is says that it is [ErrTooMuch].
func (e excess) Is(target error) bool { return target == ErrTooMuch }

// Unwrap implements the method of package errors.
func (e excess) Unwrap() error { return e.error }

func tooMuch(format string, args ...any) error {
	return excess{fault.New(fault.Image, "make it smaller, or remove what is not needed", format, args...)}
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

// otherTexts is how texts are visited that have no name by which they are known.
type otherTexts struct {
	done    map[string]bool // were visited already
	matters func(text string) bool
	visit   func(name, text string) error
}

// eachOther visits the other texts that are read at boot and matter: nobody knows
// all names that boot loaders and scripts give to their files.
func (f Files) eachOther(ctx context.Context, o otherTexts) error {
	w, err := f.atBoot(ctx)
	if err != nil {
		return err
	}
	return f.eachOf(ctx, w.found, o)
}

// eachListed visits those of files that are texts and matter.
func (f Files) eachListed(ctx context.Context, files []string, o otherTexts) error {
	var found []walked
	for _, name := range files {
		if info, err := fs.Stat(f.FS, name); err == nil && info.Mode().IsRegular() {
			found = append(found, walked{name, info})
		}
	}
	return f.eachOf(ctx, found, o)
}

func (f Files) eachOf(ctx context.Context, files []walked, o otherTexts) error {
	total := int64(0)
	for _, file := range files {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if o.done[file.name] || file.info.Size() > maxOther {
			continue
		}
		if state, told := f.state(file); told && f.Clean[state] {
			continue
		}
		text := etc.ReadUpTo(f.FS, file.name, maxOther)
		if strings.Contains(text, "\x00") || !o.matters(text) {
			continue
		}
		if total += int64(len(text)); total > maxTotal {
			return tooMuch("the texts that are read at boot and name volumes, up to %s, have more than %d MiB",
				file.name, maxTotal>>20)
		}
		if err := o.visit(file.name, text); err != nil {
			return err
		}
	}
	return nil
}

// signatureOf finds the file by which a text is signed, as GRUB's check_signatures
// wants it. No byte of such a text can change.
func (f Files) signatureOf(name string) (string, bool) {
	for _, ending := range []string{".sig", ".asc", ".p7s"} {
		if etc.Exists(f.FS, name+ending) {
			return name + ending, true
		}
	}
	return "", false
}

// eachUKI visits the unified kernel images that have a command line.
func (f Files) eachUKI(ctx context.Context, visit func(name string, u uki.File) error) error {
	return f.each(ctx, ukiFiles, func(name string) error {
		if u := uki.Read(f.FS, name, cmdline); len(u.Sections) > 0 {
			return visit(name, u)
		}
		return nil
	})
}

// each visits the files that patterns name, in their order.
func (f Files) each(ctx context.Context, patterns []string, visit func(name string) error) error {
	s := search{Files: f, visit: visit, listed: map[string][]string{}, there: map[string]bool{}}
	for _, pattern := range patterns {
		if err := s.below(ctx, ".", strings.Split(pattern, "/")); err != nil {
			return err
		}
	}
	return nil
}

// search looks for files, like [fs.Glob] but within bounds and without letter
// case on FAT. What cannot be read is not there.
type search struct {
	Files
	visit        func(name string) error
	names, found int // so far, by all patterns
	// What was asked already: patterns begin with the same directories.
	listed map[string][]string
	there  map[string]bool
}

// below visits the files below dir that a pattern, cut at its slashes, names.
func (s *search) below(ctx context.Context, dir string, pattern []string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(pattern) == 0 {
		if s.found++; s.found > maxFiles {
			return tooMuch("there are more than %d files such as %s", maxFiles, dir)
		}
		return s.visit(dir)
	}
	names, err := s.match(dir, pattern[0])
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.below(ctx, name, pattern[1:]); err != nil {
			return err
		}
	}
	return nil
}

// match gives the names in dir that one part of a pattern stands for.
func (s *search) match(dir, part string) ([]string, error) {
	if !s.FAT && !strings.ContainsAny(part, "*?[") {
		name := path.Join(dir, part)
		there, asked := s.there[name]
		if !asked {
			there = etc.Exists(s.FS, name)
			s.there[name] = there
		}
		if there {
			return []string{name}, nil
		}
		return nil, nil
	}
	entries, asked := s.listed[dir]
	if !asked {
		var err error
		if entries, err = s.list(dir); err != nil {
			return nil, err
		}
		s.listed[dir] = entries
	}
	if s.names += len(entries); s.names > maxNames {
		return nil, tooMuch("the directories such as %s have more than %d entries", dir, maxNames)
	}
	var names []string
	for _, e := range entries {
		if ok, _ := path.Match(s.fold(part), s.fold(e)); ok {
			names = append(names, path.Join(dir, e))
		}
	}
	return names, nil
}

func (f Files) fold(name string) string {
	if f.FAT {
		return strings.ToLower(name)
	}
	return name
}

// list gives the names in a directory, sorted, none if it is no directory.
func (f Files) list(dir string) ([]string, error) {
	if fi, err := fs.Stat(f.FS, dir); dir != "." && (err != nil || !fi.IsDir()) { // FAT says nothing of its root
		return nil, nil
	}
	names, err := etc.ReadDir(f.FS, dir, maxEntries)
	if errors.Is(err, etc.ErrTooMany) {
		return nil, tooMuch("the directory %s has more than %d entries", dir, maxEntries)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for files that name volumes: %w", err)
	}
	return names, nil
}
