package step

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strconv"

	"github.com/imgmut/imgmut/mutate/record"
)

// maxListed is how many files of a tree are known one by one. Of more, only the
// sum of all is kept and written down: a layer's record is read whenever somebody
// asks why a step is not reused, and what it says of a million files would take
// a gigabyte of memory each time.
const maxListed = 1 << 14

// fileList is what is known of the files of a source, in the order of the walk.
type fileList struct {
	from  From
	files []record.Input // none if there are more than maxListed
	count int
	sum   hash.Hash // of all paths and digests
	line  []byte
}

func newFileList(from From) *fileList {
	l := &fileList{from: from, sum: sha256.New()}
	l.sum.Write([]byte("imgmut tree v1\n"))
	return l
}

func (l *fileList) add(path, digest string) {
	l.line = strconv.AppendQuote(l.line[:0], path)
	l.line = append(append(append(l.line, ' '), digest...), '\n')
	l.sum.Write(l.line)
	if l.count++; l.count > maxListed {
		l.files = nil
		return
	}
	l.files = append(l.files, record.Input{Path: path, Digest: digest})
}

// inputs are what a key is made from: the files, or the tree as one.
func (l *fileList) inputs() []record.Input {
	if l.files != nil {
		return l.files
	}
	return []record.Input{{Path: l.from.Path, Digest: hex.EncodeToString(l.sum.Sum(nil))}}
}

// checkLast compares the last file of now, a later walk, with the one that was in
// its place.
func (l *fileList) checkLast(now *fileList) error {
	if l.files == nil || now.files == nil {
		return nil // check will tell
	}
	i := len(now.files) - 1
	is := now.files[i]
	if i < len(l.files) && l.files[i] == is {
		return nil
	}
	changed := is.Path
	known := func(in record.Input) bool { return in.Path == is.Path }
	if i < len(l.files) && l.files[i].Path != is.Path && slices.ContainsFunc(l.files, known) {
		changed = l.files[i].Path // it is gone, and is stands in its place
	}
	return fmt.Errorf("read %s: %w", changed, ErrInputChanged)
}

// check compares all of a later walk.
func (l *fileList) check(now *fileList) error {
	if l.count > now.count && l.files != nil {
		return fmt.Errorf("read %s: %w", l.files[now.count].Path, ErrInputChanged)
	}
	if !slices.Equal(l.sum.Sum(nil), now.sum.Sum(nil)) {
		return fmt.Errorf("read %s: %w", l.from.Path, ErrInputChanged)
	}
	return nil
}
