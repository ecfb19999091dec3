package verify

import (
	"context"
	"slices"
	"time"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/tool"
)

// Check is one thing that is looked at in every image, offline. A further one is
// a file with it and a line in [Checks].
type Check struct {
	Name    string
	Version int // bumped when it comes to judge otherwise
	// Run looks, and gives what it found: one check, or one for each volume. It
	// gets an open image and mounts nothing itself. An error says that it could
	// not be found out.
	Run func(ctx context.Context, r Request) ([]record.Check, error)
	// find, of a check that judges what a base brings along, gives its findings
	// one by one: see [Findings].
	find func(ctx context.Context, i *disk.Image) ([]finding, error)
}

// Checks lists them, in the order of the verdict.
func Checks() []Check {
	return []Check{tableCheck, filesystemsCheck, referencesCheck, closureCheck, bootCheck, sharedCheck, firstBootCheck}
}

// checkAll runs all checks.
func checkAll(ctx context.Context, r Request) ([]record.Check, error) {
	found, err := tool.Each(Checks(), func(c Check) ([]record.Check, error) {
		started := time.Now()
		found, err := c.Run(ctx, r)
		for i := range found {
			if found[i].Took == 0 { // it did not say itself
				found[i].Took = time.Since(started)
			}
		}
		return found, err
	})
	return slices.Concat(found...), err
}
