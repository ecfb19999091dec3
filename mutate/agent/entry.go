package agent

import (
	"archive/tar"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Records of a tar header beyond the standard (pax(1)).
const (
	// xattrRecord comes before the name of an extended attribute, in which "%"
	// and "=" are written as in a URL: no record's name may hold the latter.
	xattrRecord = "IMGMUT.xattr."
	// ownerRecord is an owner as the recipe says it, USER or USER:GROUP: only
	// the image knows its own users.
	ownerRecord = "IMGMUT.owner"
	// timeRecord is when the file was modified, in nanoseconds since 1970. The
	// header's own field cannot say that there is no time.
	timeRecord = "IMGMUT.mtime"
	// sparseRecord is the size of a file with holes and, after it, where it has
	// data: "SIZE OFFSET:LENGTH OFFSET:LENGTH". Only the data follow. Tar's own
	// forms of that can be read by archive/tar, but not written.
	sparseRecord = "IMGMUT.sparse"
)

// Range is a part of a file, in bytes.
type Range struct{ Offset, Length int64 }

// SetOwner gives a file an owner by its name; the empty one leaves the numbers
// of the header.
func SetOwner(h *tar.Header, owner string) {
	if owner != "" {
		setRecord(h, ownerRecord, owner)
	}
}

// SetTime gives a file its time of modification; without it that is when the
// file is written.
func SetTime(h *tar.Header, t time.Time) { setRecord(h, timeRecord, formatTime(t)) }

// SetXattr gives a file an extended attribute.
func SetXattr(h *tar.Header, name, value string) {
	setRecord(h, xattrRecord+xattrEscape.Replace(name), value)
}

// SetSparse says of a regular file that it has size bytes, and of them only
// those of data follow, one range after the other.
func SetSparse(h *tar.Header, size int64, data []Range) {
	var b []byte
	b = strconv.AppendInt(b, size, 10)
	h.Size = 0
	for _, r := range data {
		b = fmt.Appendf(b, " %d:%d", r.Offset, r.Length)
		h.Size += r.Length
	}
	setRecord(h, sparseRecord, string(b))
}

// Owner is the owner that [SetOwner] gave, or else that of the header's numbers.
func Owner(h *tar.Header) string {
	if o := h.PAXRecords[ownerRecord]; o != "" {
		return o
	}
	return fmt.Sprintf("%d:%d", h.Uid, h.Gid)
}

// Time is what [SetTime] gave.
func Time(h *tar.Header) (t time.Time, ok bool, err error) {
	s, ok := h.PAXRecords[timeRecord]
	if !ok {
		return t, false, nil
	}
	sec, nano, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	if err != nil {
		return t, false, fmt.Errorf("time %q: %w", s, err)
	}
	m, err := strconv.ParseInt(nano, 10, 64)
	if err != nil {
		return t, false, fmt.Errorf("time %q: %w", s, err)
	}
	return time.Unix(n, m), true, nil
}

// formatTime is seconds, which may be below zero, and nanoseconds after them.
func formatTime(t time.Time) string {
	return strconv.FormatInt(t.Unix(), 10) + "." + strconv.Itoa(t.Nanosecond())
}

// Xattrs are what [SetXattr] gave.
func Xattrs(h *tar.Header) map[string]string {
	var attrs map[string]string
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, xattrRecord); ok {
			if attrs == nil {
				attrs = map[string]string{}
			}
			attrs[xattrUnescape.Replace(name)] = v
		}
	}
	return attrs
}

// Sparse is what [SetSparse] gave. The ranges are in order and within the size.
func Sparse(h *tar.Header) (size int64, data []Range, ok bool, err error) {
	s, ok := h.PAXRecords[sparseRecord]
	if !ok {
		return 0, nil, false, nil
	}
	first, rest, _ := strings.Cut(s, " ")
	if size, err = strconv.ParseInt(first, 10, 64); err != nil || size < 0 {
		return 0, nil, false, fmt.Errorf("size of a sparse file %q: %w", first, ErrProtocol)
	}
	end, sum := int64(0), int64(0)
	for text := range strings.FieldsSeq(rest) {
		from, length, _ := strings.Cut(text, ":")
		o, err1 := strconv.ParseInt(from, 10, 64)
		l, err2 := strconv.ParseInt(length, 10, 64)
		if err1 != nil || err2 != nil || o < end || l < 0 || l > size-o {
			return 0, nil, false, fmt.Errorf("range of a sparse file %q: %w", text, ErrProtocol)
		}
		end = o + l
		sum += l
		data = append(data, Range{o, l})
	}
	if sum != h.Size {
		return 0, nil, false, fmt.Errorf("ranges of a sparse file: %d bytes, but %d follow: %w", sum, h.Size, ErrProtocol)
	}
	return size, data, true, nil
}

var (
	xattrEscape   = strings.NewReplacer("%", "%25", "=", "%3D")
	xattrUnescape = strings.NewReplacer("%25", "%", "%3D", "=")
)

func setRecord(h *tar.Header, name, value string) {
	if h.PAXRecords == nil {
		h.PAXRecords = map[string]string{}
	}
	h.PAXRecords[name] = value
}
