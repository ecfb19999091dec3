package mutate

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/imgmut/imgmut/mutate/fork"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
	"github.com/imgmut/imgmut/mutate/printable"
	"github.com/imgmut/imgmut/recipes"
)

// noSpace is what programs print where there is no room: strerror(3), and apt.
var noSpace = lazyregexp.New(`(?i)no space left on device|not enough free disk space|enough free space in `)

// saysFull says whether a step failed for want of room, by its own account.
func saysFull(tail []string, err error) bool {
	return slices.ContainsFunc(tail, noSpace().MatchString) || errors.Is(err, syscall.ENOSPC)
}

// full gives the mend if a filesystem of the image is full, or if the step said that
// something was: much of what it wrote may be gone by now. It is "" if neither.
func (b *build) full(rooms []guest.Room, said bool) string {
	if len(rooms) == 0 {
		return ""
	}
	r, full := fullest(rooms)
	switch {
	case full || said && r.Free < r.Size/2:
		return why(r, full) + b.giveRoom(r.At)
	case said:
		return "what is full is none of the image's filesystems, but a place in memory, such as /tmp, /run or /dev/shm: " +
			"use /var/tmp for what is large"
	}
	return ""
}

// fullest is the filesystem with the least room for its size, and whether it has next
// to none. Some keep a little back for themselves.
func fullest(rooms []guest.Room) (r guest.Room, full bool) {
	left := func(r guest.Room) float64 {
		part := float64(r.Free) / float64(max(r.Size, 1))
		if r.Files > 0 {
			part = min(part, float64(r.Spare)/float64(r.Files))
		}
		return part
	}
	r = slices.MinFunc(rooms, func(a, b guest.Room) int { return cmp.Compare(left(a), left(b)) })
	return r, left(r) < 0.005
}

// why says what a filesystem has no more of.
func why(r guest.Room, full bool) string {
	name := "the image's filesystem on " + r.At
	if r.At == "/" {
		name = "the image's root filesystem"
	}
	switch {
	case r.Files > 0 && r.Spare == 0:
		return fmt.Sprintf("%s has no inode left for another file (of %d)", name, r.Files)
	case full:
		return fmt.Sprintf("%s is full (%s)", name, printable.Size(r.Size))
	}
	return fmt.Sprintf("%s was full (%s, of which %s are free again)", name, printable.Size(r.Size), printable.Size(r.Free))
}

// giveRoom says how the filesystem that is mounted there can be made larger, or why it
// cannot.
func (b *build) giveRoom(at string) string {
	const gib = 1 << 30
	size := recipes.Size{Bytes: (2*b.plan.size() + gib - 1) / gib * gib}
	asked := fmt.Sprintf("disk: {size: %s, grow: %s}", size, at)
	if at == "/" {
		asked = fmt.Sprintf("disk: {size: %s}", size)
	}
	var no *fork.Refusal
	if _, _, err := (fork.Room{Size: size.Bytes, Grow: at}).Plan(b.base, &b.plan.base.Layout); errors.As(err, &no) {
		return fmt.Sprintf(", and %s: %s", no.Why, no.Mend)
	}
	return ": give it room with " + asked
}
