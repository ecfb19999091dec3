// Package verify judges an image without trusting how it was made.
//
// It looks at the finished file alone: both copies of the partition table, each
// filesystem by its own checker, every reference from one volume to another,
// and then what the recipe asserts, in a guest that cannot write. A checker gets
// its partition as a plain file that shares the image's extents. So it needs no
// loop device, and whatever it writes is thrown away.
//
// An image that fails has a [record.Verdict] that is not OK. An error says that
// it could not be judged.
package verify

import (
	"context"
	"time"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/record"
)

// Request says what to judge.
type Request struct {
	Image      *disk.Image // nothing may write to it meanwhile
	Scratch    string      // a directory that can reflink, best on the image's filesystem
	Base       *Base       // of which the image was made, nil if none is known
	Assertions []Assertion
	// Guest starts a read-only guest over the image, only if there is an
	// assertion. Its end is the caller's.
	Guest func(ctx context.Context) (Guest, error)
}

// known are what was wrong with the base: not the image's fault.
func (r Request) known() []string {
	if r.Base == nil {
		return nil
	}
	return r.Base.Known
}

// Image judges an image. One that cannot be used at all, because its table is
// damaged or it has no root, is an error of class fault.Image.
func Image(ctx context.Context, r Request) (*record.Verdict, error) {
	v := &record.Verdict{At: time.Now().UTC()}
	found, err := checkAll(ctx, r)
	if err != nil {
		return nil, err
	}
	v.Checks = append(v.Checks, found...)
	if len(v.Failed()) == 0 && len(r.Assertions) > 0 {
		found, err := assertAll(ctx, r)
		if err != nil {
			return nil, err
		}
		v.Checks = append(v.Checks, found...)
	}
	v.OK = len(v.Failed()) == 0
	return v, nil
}
