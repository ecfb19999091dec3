// Package verify judges an image without trusting how it was made.
//
// It looks at the finished file alone: both copies of the partition table, each
// filesystem by its own checker, every reference from one volume to another,
// and then what the recipe asserts, in a guest that cannot write. The checkers
// see a reflinked carve-out of their partition as a plain file, so they need
// no loop device, and one that would repair something repairs nothing that
// anybody keeps.
//
// An image that fails is a [record.Verdict] that is not OK. An error says that it
// could not be judged.
package verify

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/refs"
)

// Request says what to judge.
type Request struct {
	Image      *disk.Image // nothing may write to it meanwhile
	Scratch    string      // a directory that can reflink, best on the image's filesystem
	Assertions []Assertion
	// Guest starts a read-only guest over the image, only if there is an
	// assertion. Its end is the caller's.
	Guest func(ctx context.Context) (Guest, error)
}

// Image judges an image. What it finds first that makes the image unusable as
// a whole (a damaged table, no root) is a [disk.InvalidError].
func Image(ctx context.Context, r Request) (*record.Verdict, error) {
	started := time.Now()
	v := &record.Verdict{At: started.UTC()}
	// An image with a damaged table cannot be opened.
	v.Checks = append(v.Checks, record.Check{Name: "partition table: " + string(r.Image.Layout.Table), OK: true})
	checks, err := structural(ctx, r)
	if err != nil {
		return nil, err
	}
	v.Checks = append(v.Checks, checks...)
	if len(v.Failed()) == 0 && len(r.Assertions) > 0 {
		checks, err := assertAll(ctx, r)
		if err != nil {
			return nil, err
		}
		v.Checks = append(v.Checks, checks...)
	}
	v.OK = len(v.Failed()) == 0
	return v, nil
}

// structural runs the checks of the volumes and of the references at once:
// each mostly waits for a program.
func structural(ctx context.Context, r Request) ([]record.Check, error) {
	// Roles are needed for the references alone, and finding them takes a while.
	volumes := slices.Clone(r.Image.Layout.Volumes)
	tasks := []func() (record.Check, error){func() (record.Check, error) { return references(ctx, r.Image) }}
	for _, v := range volumes {
		if c, ok := checkers[v.FS]; ok {
			tasks = append(tasks, func() (record.Check, error) { return c.check(ctx, r, v) })
		}
	}
	checks, errs := make([]record.Check, len(tasks)), make([]error, len(tasks))
	var wg sync.WaitGroup
	for i, task := range tasks {
		wg.Go(func() {
			started := time.Now()
			checks[i], errs[i] = task()
			checks[i].Took = time.Since(started)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return append(checks[1:], checks[0]), nil
}

// maxDangling is how many references that lead nowhere are told of.
const maxDangling = 10

// references checks that each volume that a file of the image names is there.
func references(ctx context.Context, i *disk.Image) (record.Check, error) {
	c := record.Check{Name: "references", OK: true}
	if err := i.FindRoles(); err != nil {
		return c, err
	}
	l := i.Layout
	var dangling []string
	for _, v := range l.Volumes {
		if !v.HasReferences() {
			continue
		}
		tree, err := i.Tree(v)
		if err != nil { // root could be opened, so this is about the volume, not the machine
			dangling = append(dangling, err.Error())
			continue
		}
		named, err := refs.Files{FS: tree, FAT: v.FS == "vfat"}.References(ctx)
		if err != nil {
			return c, err
		}
		for _, ref := range named {
			if _, ok := l.Resolve(ref.Spec); !ok && ref.Needed {
				dangling = append(dangling, fmt.Sprintf("%s names %s, which no volume of the image has", filepath.Join(v.Mountpoint, ref.File), ref.Spec))
			}
		}
	}
	if n := len(dangling) - maxDangling; n > 0 {
		dangling = append(dangling[:maxDangling], fmt.Sprintf("and %d more", n))
	}
	if len(dangling) > 0 {
		c.OK, c.Detail = false, strings.Join(dangling, "; ")
	}
	return c, nil
}
