package bootc

import (
	"bytes"
	"io"
	"slices"
	"strconv"
)

// headers is the way of a tar to where it is written. It turns round the extended attributes
// of an entry: ostree takes them as libarchive gives them, the last first, and names the
// object by them in that order; but the name is right only if they are in theirs. fsck
// would find each file that has two of them.
type headers struct {
	out  io.Writer
	kept *bytes.Buffer // the header that is being written, nil if none is
}

// Write implements [io.Writer].
func (h *headers) Write(b []byte) (int, error) {
	if h.kept != nil {
		return h.kept.Write(b)
	}
	return h.out.Write(b)
}

// begin says that what is written next is a header.
func (h *headers) begin() { h.kept = new(bytes.Buffer) }

// end writes the header that was written since begin: one for the attributes, if there are
// any, and the entry's own.
func (h *headers) end() error {
	b := h.kept.Bytes()
	h.kept = nil
	if len(b) > tarBlock && b[typeflagAt] == 'x' {
		size, err := strconv.ParseInt(string(bytes.Trim(b[sizeAt:sizeAt+12], " \x00")), 8, 32)
		if err == nil && tarBlock+int(size) <= len(b) {
			turn(b[tarBlock : tarBlock+int(size)])
		}
	}
	_, err := h.out.Write(b)
	return err
}

// Where things are in the header of a tar (POSIX.1-2001, pax).
const (
	tarBlock   = 512
	sizeAt     = 124
	typeflagAt = 156
)

// turn puts the extended attributes of a pax header last to first, in place. Each record
// is its own length, a space, KEY=VALUE and a newline.
func turn(records []byte) {
	var attributes, others [][]byte
	for rest := records; len(rest) > 0; {
		digits, _, ok := bytes.Cut(rest, []byte(" "))
		n, err := strconv.Atoi(string(digits))
		if !ok || err != nil || n <= len(digits) || n > len(rest) {
			return
		}
		record := rest[:n]
		rest = rest[n:]
		if bytes.HasPrefix(record[len(digits)+1:], []byte(xattrRecord)) {
			attributes = append(attributes, record)
		} else {
			others = append(others, record)
		}
	}
	slices.Reverse(attributes)
	copy(records, bytes.Join(append(others, attributes...), nil))
}
