package refs

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"unicode/utf16"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// finder finds UUIDs of partitions and filesystems in bytes of any sort, many in one
// pass. Each may be written as text, in one or two bytes a letter and in any letter case,
// or as 16 bytes in either order: GPT's, as firmware has it in boot entries, and
// that of RFC 9562.
//
// It looks at eight bytes of every few, as far apart as the shortest form still
// has such eight bytes somewhere, and only where those are some form's it looks
// closer. So most of the bytes are never touched.
type finder struct {
	ids    []string
	forms  map[string]form       // by their bytes, with all letters small
	grams  map[uint64][]position // by eight of their bytes, folded
	filter [1 << 10]uint64       // a bit for each hash of a gram
	stride int
	buf    []byte
	hits   int // grams found in what is read now
}

// form is one way in which an ID is written.
type form struct {
	id   int
	kind formKind
}

type formKind int

const (
	asText   formKind = iota // with dashes, those of a unit's name escaped or not
	asHex                    // the digits alone
	asWide                   // UTF-16, little-endian
	asBinary                 // 16 bytes
	asLabel                  // not an ID but a label, with what says that it is one
)

// position is where in a form of that length a gram is.
type position struct{ offset, length int }

// escapedDash is a dash in the name of a unit for a device (systemd-escape(1)).
const escapedDash = `\x2d`

const (
	gram    = 8   // bytes
	tagRoom = 512 // bytes before a form that tell what it names
	chunk   = 256 << 10
	maxHits = 1 << 20 // in one file: each costs a closer look
	letter  = 2       // bytes of the widest
)

// errTooOften is the error for bytes that are made to cost time.
var errTooOften = errors.New("too much is like an ID")

// newFinder makes a finder of IDs: UUIDs, those of an MBR's partitions, or the
// serials of FAT volumes. Labels are found too where they are said to be some.
func newFinder(ids []string, labels ...string) *finder {
	f := &finder{forms: map[string]form{}, grams: map[uint64][]position{}, buf: make([]byte, tagRoom+2*chunk)}
	shortest := chunk
	add := func(forms map[string]formKind) {
		for text, kind := range forms {
			if len(text) >= gram {
				f.forms[text] = form{len(f.ids) - 1, kind}
				shortest = min(shortest, len(text))
			}
		}
	}
	for _, id := range ids {
		f.ids = append(f.ids, strings.ToLower(id))
		add(formsOf(strings.ToLower(id)))
	}
	for _, label := range labels {
		f.ids = append(f.ids, label)
		add(labelForms(strings.ToLower(label)))
	}
	f.stride = min(shortest-gram+1, 8)
	for text := range f.forms {
		for offset := range f.stride {
			f.add(binary.LittleEndian.Uint64([]byte(text[offset:])), position{offset, len(text)})
		}
	}
	return f
}

// again is the same finder, for another goroutine.
func (f *finder) again() *finder {
	another := *f
	another.buf = make([]byte, len(f.buf))
	return &another
}

func (f *finder) add(word uint64, p position) {
	word |= folded
	for _, known := range f.grams[word] {
		if known == p {
			return
		}
	}
	f.grams[word] = append(f.grams[word], p)
	h := hash(word)
	f.filter[h>>6] |= 1 << (h & 63)
}

// folded makes letters small, and digits and dashes what they are. Other bytes
// are changed as well, in the forms and in what is searched.
const folded = 0x2020202020202020

func hash(word uint64) uint64 { return word * 0x9e3779b97f4a7c15 >> 48 }

// formsOf lists how an ID may be written.
func formsOf(id string) map[string]formKind {
	wide := make([]byte, 0, 2*len(id))
	for _, u := range utf16.Encode([]rune(id)) {
		wide = binary.LittleEndian.AppendUint16(wide, u)
	}
	forms := map[string]formKind{id: asText, strings.ReplaceAll(id, "-", escapedDash): asText, string(wide): asWide}
	digits := strings.ReplaceAll(id, "-", "")
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) != 16 {
		return forms // a short one's digits cannot be told from any other number
	}
	forms[digits] = asHex
	if plain(b) {
		return forms
	}
	forms[string(b)] = asBinary
	binary.LittleEndian.PutUint32(b, binary.BigEndian.Uint32(b))
	binary.LittleEndian.PutUint16(b[4:], binary.BigEndian.Uint16(b[4:]))
	binary.LittleEndian.PutUint16(b[6:], binary.BigEndian.Uint16(b[6:]))
	forms[string(b)] = asBinary
	return forms
}

// labelForms lists how a label may be said to be one.
func labelForms(label string) map[string]formKind {
	return map[string]formKind{"label=" + label: asLabel, `label="` + label: asLabel, "by-label/" + label: asLabel,
		`by\x2dlabel-` + strings.ReplaceAll(label, "-", escapedDash): asLabel}
}

// isLabel says whether the label of a form is there, letter for letter, and no part of
// a longer word.
func (f *finder) isLabel(m match, text string, after []byte) bool {
	tagged := strings.HasPrefix(text, "LABEL=") || strings.HasPrefix(text, "by-label/") || strings.HasPrefix(text, `by\x2dlabel-`)
	whole := strings.HasSuffix(strings.ReplaceAll(text, escapedDash, "-"), f.ids[m.id]) && labelEnd().Match(after)
	n := len(m.before)
	return tagged && whole && (n == 0 || !isWord(m.before[n-1]))
}

func isWord(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' }

// plain says that bytes are too few different ones to be a name: zeros are
// everywhere.
func plain(b []byte) bool {
	different := map[byte]bool{}
	for _, c := range b {
		different[c] = true
	}
	return len(different) < 4
}

// match is a place where an ID is.
type match struct {
	form
	start, end int    // in the stretch of bytes that is looked at
	before     []byte // in the same stretch
}

// find reads r to its end. found says whether to go on.
func (f *finder) find(r io.Reader, found func(match) bool) error {
	var have, done int // bytes in buf, and how many of them were there at the last look
	f.hits = 0
	for {
		n, err := readFull(r, f.buf[have:])
		have += n
		if !f.look(f.buf[:have], done, err == io.EOF, found) || err == io.EOF {
			return nil
		}
		switch {
		case err != nil:
			return err
		case f.hits > maxHits:
			return errTooOften
		}
		const keep = tagRoom + 256 // more than any form has
		copy(f.buf, f.buf[have-keep:have])
		have, done = keep, keep
	}
}

// readFull fills b as far as it can. It is io.EOF only at the end.
func readFull(r io.Reader, b []byte) (int, error) {
	n, err := io.ReadFull(r, b)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}

// look finds what the look before did not, which had the first done bytes. Unless
// these are the last bytes, what ends with them is left to the next look: the
// letter that follows decides whether it is an ID.
func (f *finder) look(b []byte, done int, last bool, found func(match) bool) bool {
	for at := 0; at+gram <= len(b); at += f.stride {
		word := binary.LittleEndian.Uint64(b[at:]) | folded
		if h := hash(word); f.filter[h>>6]&(1<<(h&63)) == 0 {
			continue
		}
		positions := f.grams[word]
		f.hits += len(positions)
		for _, p := range positions {
			start, end := at-p.offset, at-p.offset+p.length
			if start < 0 || end > len(b) || end+letter <= done || end+letter > len(b) && !last {
				continue
			}
			if m, ok := f.matchAt(b, start, end); ok && !found(m) {
				return false
			}
		}
	}
	return true
}

// matchAt says whether a form is there, and is no part of a longer one.
func (f *finder) matchAt(b []byte, start, end int) (match, bool) {
	m := match{start: start, end: end, before: b[max(0, start-tagRoom):start]}
	var ok bool
	if m.form, ok = f.forms[string(b[start:end])]; ok && m.kind == asBinary {
		return m, true
	}
	if m.form, ok = f.forms[strings.ToLower(string(b[start:end]))]; !ok || m.kind == asBinary {
		return m, false
	}
	if m.kind == asLabel {
		return m, f.isLabel(m, string(b[start:end]), b[end:])
	}
	return m, !m.continued(b[:start], b[end:])
}

// escape is a byte in the name of a unit, of which the digits are none of an ID.
var escape = lazyregexp.New(`\\x[0-9a-f]{2}$`)

// continued says whether an ID is a part of something longer.
func (f form) continued(before, after []byte) bool {
	if f.kind == asWide {
		n := len(before)
		return n > 1 && before[n-1] == 0 && isHex(before[n-2]) || len(after) > 1 && isHex(after[0]) && after[1] == 0
	}
	n := len(before)
	return n > 0 && isHex(before[n-1]) && !escape().Match(before[max(0, n-4):]) || len(after) > 0 && isHex(after[0])
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }
