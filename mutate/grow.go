package mutate

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fork"
	"github.com/imgmut/imgmut/mutate/printable"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/recipes"
)

// enlarged tells of a base whose file was made larger after it was partitioned.
const enlarged = "the image is larger than its partition table says, and the backup of that is not at its end: " +
	"images made of it have it there"

// growth finds out how much larger than that of its base the disk of an image is to be,
// and what is in it then. What cannot be had is a problem of the recipe.
func (e *Engine) growth(r *recipes.Recipe, base *record.Base) (fork.Growth, *disk.Layout, error) {
	asked := r.Disk.Size
	if asked.Bytes == 0 && !base.Layout.Grown {
		return fork.Growth{}, &base.Layout, nil
	}
	f, err := os.Open(e.Catalog().BaseFile(base.Digest))
	if err != nil {
		return fork.Growth{}, nil, err
	}
	defer f.Close()
	g, l, err := fork.Room{Size: asked.Bytes, More: asked.More, Grow: r.Disk.Grow}.Plan(f, &base.Layout)
	var no *fork.Refusal
	switch {
	case errors.As(err, &no):
		err = recipes.Problems{r.DiskProblem(no.Field, no.Mend, "%s", no.Why)}
	case err != nil:
		err = fmt.Errorf("%s: disk: %w", r.File, err)
	}
	return g, l, err
}

// size is that of the image in bytes.
func (p *plan) size() int64 {
	if p.growth.Size != 0 {
		return p.growth.Size
	}
	return p.base.Size
}

// grow makes the disk of a fork of the base as large as it is to be.
func (b *build) grow(ctx context.Context, file string) error {
	g := b.plan.growth
	if g == (fork.Growth{}) {
		return nil
	}
	if b.plan.base.Layout.Grown {
		b.note(enlarged)
	}
	if v, ok := b.plan.layout.Slot(g.Slot); ok {
		b.phase(fmt.Sprintf("grow %s, on a disk of %s", v, printable.Size(g.Size)))
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(g.Grow(ctx, f, b.plan.layout, b.note), f.Close())
}
