package bootfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	cpioHeader = 110  // bytes
	maxName    = 4096 // bytes, PATH_MAX
)

func isCpio(head []byte) bool {
	return bytes.HasPrefix(head, []byte("070701")) || bytes.HasPrefix(head, []byte("070702"))
}

// cpio gives the files of one archive. Its numbers are of eight hexadecimal
// digits each; names and contents end at a multiple of four.
func (w *walker) cpio(in *bufio.Reader) error {
	for {
		name, size, err := cpioEntry(in)
		if err != nil || name == "TRAILER!!!" {
			return damagedIf(err)
		}
		content := &io.LimitedReader{R: in, N: size}
		if head, _ := in.Peek(int(min(size, 2048))); len(head) > 0 {
			if inside := filesystemIn(head); inside != "" {
				w.Unread(name, "there is a filesystem in it, "+inside)
			}
		}
		if err := w.Content(name, content); err != nil {
			return err
		}
		left := content.N
		if n, err := io.CopyN(io.Discard, in, left+(-size&3)); err != nil {
			if n >= left && err == io.EOF {
				return nil // the last file, not filled up
			}
			return damagedIf(err)
		}
	}
}

// cpioEntry reads what comes before the content of a file.
func cpioEntry(in *bufio.Reader) (name string, size int64, err error) {
	head := make([]byte, cpioHeader)
	if _, err := io.ReadFull(in, head); err != nil {
		return "", 0, err
	}
	if !isCpio(head) {
		return "", 0, errors.New("no file begins where one should")
	}
	number := func(n int) int64 {
		v, parseErr := strconv.ParseUint(string(head[6+8*n:][:8]), 16, 32)
		err = errors.Join(err, parseErr)
		return int64(v)
	}
	size, length := number(6), number(11)
	if err == nil && (length == 0 || length > maxName) {
		err = fmt.Errorf("a name is of %d bytes", length)
	}
	if err != nil {
		return "", 0, err
	}
	b := make([]byte, length+(-(cpioHeader+length)&3))
	if _, err := io.ReadFull(in, b); err != nil {
		return "", 0, err
	}
	name, _, _ = strings.Cut(string(b[:length]), "\x00")
	return name, size, nil
}

// damagedIf makes an error one of the archive, unless it comes from below.
func damagedIf(err error) error {
	var damage *damageError
	switch {
	case err == nil, errors.Is(err, ErrTooLarge), errors.As(err, &damage):
		return err
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return &damageError{"a cpio archive", err}
}

// filesystemIn names the filesystem that begins like this, as dracut's module
// "squash" puts one into an initrd.
func filesystemIn(head []byte) string {
	switch {
	case bytes.HasPrefix(head, []byte("hsqs")):
		return "squashfs"
	case len(head) >= 1028 && string(head[1024:1028]) == "\xe2\xe1\xf5\xe0":
		return "erofs"
	case len(head) >= 1082 && string(head[1080:1082]) == "\x53\xef":
		return "ext4"
	}
	return ""
}
