package recipes

import (
	"errors"
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// Disk says how large the disk of the image is.
type Disk struct {
	Size Size   // no bytes leave it as the base has it
	Grow string // which partition gets the room: its number, or where it is mounted; empty leaves that open
	Pos  Pos
}

// Size is a number of bytes that a recipe writes as "20G", or as "+10G" for so much more
// than there is. K, M, G and T are powers of 1024, as truncate(1) and qemu-img have them.
type Size struct {
	Bytes int64
	More  bool // than the base has
}

// String is the size in the largest unit of which it is a whole number.
func (s Size) String() string {
	text := fmt.Sprintf("%dK", s.Bytes/1024)
	for i, unit := range sizeUnits {
		if of := int64(1024) << (10 * i); s.Bytes%of == 0 {
			text = fmt.Sprintf("%d%c", s.Bytes/of, unit)
		}
	}
	if s.More {
		text = "+" + text
	}
	return text
}

const sizeUnits = "KMGT"

var (
	sizeForm = lazyregexp.New(`^(\+?)([0-9]+)([` + sizeUnits + `])$`)
	errSize  = errors.New("want a size such as 512M, 20G or +10G")
)

// ParseSize reads a size.
func ParseSize(s string) (Size, error) {
	m := sizeForm().FindStringSubmatch(s)
	if m == nil {
		return Size{}, errSize
	}
	unit := int64(1024) << (10 * strings.Index(sizeUnits, m[3]))
	n, err := strconv.ParseInt(m[2], 10, 64)
	if err != nil || n > math.MaxInt64/unit {
		return Size{}, errors.New("more than any disk has")
	}
	if n == 0 {
		return Size{}, errSize
	}
	return Size{n * unit, m[1] == "+"}, nil
}

// DiskProblem is a problem with a field of disk, for what Parse cannot judge.
func (r *Recipe) DiskProblem(field, hint, format string, args ...any) Problem {
	p := newProblem(r.File, r.Disk.Pos, at("disk", field), format, args...)
	p.Hint = hint
	return p
}

func (b *builder) disk(n *node) {
	b.r.Disk.Pos = n.pos
	if n.kind != mapping {
		b.wrongType(n, "disk", "a mapping with size", "write disk: {size: 20G}")
		return
	}
	for _, e := range n.entries {
		switch e.key {
		case "size":
			b.size(e.value)
		case "grow":
			b.grow(e.value)
		default:
			b.unknownKey(e, "disk", []string{"size", "grow"})
		}
	}
	if _, ok := n.get("size"); !ok {
		b.add(n.pos, "disk.size", "", "missing")
	}
}

func (b *builder) size(n *node) {
	const hint = "K, M, G and T are powers of 1024"
	if n.kind == number {
		b.add(n.pos, "disk.size", hint, "%q: %v", shorten(n.text), errSize)
		return
	}
	s, ok := b.text(n, "disk.size", "a size such as 20G or +10G")
	if !ok {
		return
	}
	size, err := ParseSize(s)
	if err != nil {
		b.add(n.pos, "disk.size", hint, "%q: %v", shorten(s), err)
		return
	}
	b.r.Disk.Size = size
}

// grow reads a partition's number, or the place where it is mounted.
func (b *builder) grow(n *node) {
	const want = "the number of a partition, or where it is mounted, as /var"
	switch {
	case n.kind != number && n.kind != text && n.kind != untyped:
		b.wrongType(n, "disk.grow", want, "")
	case strings.HasPrefix(n.text, "/") && path.Clean(n.text) == n.text && !strings.ContainsRune(n.text, 0):
		b.r.Disk.Grow = n.text
	case !partitionNumber().MatchString(n.text):
		b.add(n.pos, "disk.grow", "", "%q: want %s", shorten(n.text), want)
	default:
		b.r.Disk.Grow = n.text
	}
}

var partitionNumber = lazyregexp.New(`^[1-9][0-9]{0,3}$`)
