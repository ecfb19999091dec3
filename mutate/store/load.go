package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"strings"

	"github.com/imgmut/imgmut/mutate/fault"
)

// ErrBadRecord says that the record of an object cannot be read, or that the
// object has no disk.
var ErrBadRecord = errors.New("unreadable record")

// maxRecord is how large a record can be, in bytes. The largest have a line for
// each of a hundred thousand files that a step reads.
const maxRecord = 64 << 20

// Checker is a record that can tell whether it was read from one of its kind:
// any JSON object can be read into any record, and leaves it empty then.
type Checker interface {
	// Check is an error if this is no record of an object of that name.
	Check(name string) error
}

// Load reads an object's record into rec, or returns [ErrNotFound]. It is
// [ErrBadRecord] if the object is not whole, which is a matter of this object
// alone.
func (s *Store) Load(k Kind, name string, rec any) error {
	if err := checkName(name); err != nil {
		return err
	}
	missing := fmt.Errorf("%s %s: %w", strings.TrimSuffix(string(k), "s"), name, ErrNotFound)
	path := s.Path(k, name, "json")
	f, err := openPart(path, os.O_RDONLY)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return missing
	case err != nil && !errors.Is(err, errUntrusted):
		return err // of the machine: no rights, no descriptors
	case err == nil:
		defer f.Close()
		err = readRecord(f, name, rec)
	}
	if err == nil {
		err = trustPart(s.Path(k, name, "raw"), 0)
		// Removed in this very moment? The record goes first.
		if errors.Is(err, fs.ErrNotExist) && !stillAt(f, path) {
			return missing
		}
	}
	if err == nil {
		return nil
	}
	mend := "imgmut rm " + name + " removes it"
	if k == Layers {
		mend = "it is made again when it is needed"
	}
	return fault.New("", mend, "%w %s: %w", ErrBadRecord, path, err)
}

// readRecord reads a record into rec. What it does not say is not said,
// whatever rec held before.
func readRecord(f *os.File, name string, rec any) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if fi.Size() > maxRecord {
		return fmt.Errorf("it has %d bytes, and no record has more than %d", fi.Size(), maxRecord)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return err
	}
	reflect.ValueOf(rec).Elem().SetZero()
	if err := json.Unmarshal(b, rec); err != nil {
		return err
	}
	if c, ok := rec.(Checker); ok {
		return c.Check(name)
	}
	return nil
}

// stillAt says whether a path is still that of an open file.
func stillAt(f *os.File, path string) bool {
	is, err := os.Lstat(path)
	if err != nil {
		return false
	}
	was, err := f.Stat()
	return err == nil && os.SameFile(was, is)
}
